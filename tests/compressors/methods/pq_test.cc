#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "compressors/codecs/pq_codec.h"
#include "kernels/convert.h"
#include "tests/compressors/compressed_cache.h"
#include "tests/compressors/format_conformance.h"
#include "tests/error_of.h"

namespace kva {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::shared_ptr<const SideCodec> codec_of(const PqShape& shape, const std::vector<float>& codebook) {
  auto memory = std::make_shared<SideMemory>(make_cpu_backend());
  return make_pq_codec(shape, make_f16_array(std::move(memory), codebook, "codebook"));
}

// Two parts of two numbers, four centroids each.
//   part 0: (0,0) (1,0) (0,1) (4,4)     part 1: (-1,-1) (2,0) (0,2) (0,0)
TEST(Pq, StoresTheNearestCentroidsOfAHandMadeCodebook) {
  const auto codec =
      codec_of({.width = 4, .m = 2, .bits = 2}, {0, 1, 0, 4, 0, 0, 1, 4, -1, 2, 0, 0, -1, 0, 2, 0});
  EXPECT_EQ(codec->name(), "pq(m=2,bits=2)");
  const std::vector<float> rows = {0.9f,  0.2f,  1.5f, 0.1f,   // centroids 1 and 1
                                   3.0f,  3.0f,  0.1f, 1.4f,   // 3 and 2
                                   -0.2f, 0.4f,  -3.f, -0.1f,  // 0 and 0
                                   0.0f,  10.0f, 0.4f, 0.3f};  // 3 and 3
  const auto payload = encoded(*codec, rows, 4, 4);
  EXPECT_EQ(codec->bytes(4, 4), 4);
  EXPECT_EQ(codec->scale_bytes(4, 4), 0);
  EXPECT_EQ(payload, (std::vector<std::byte>{std::byte{0b0101}, std::byte{0b1011}, std::byte{0b0000},
                                             std::byte{0b1111}}));
  EXPECT_EQ(decoded(*codec, payload, 4, 4),
            (std::vector<float>{1, 0, 2, 0, 4, 4, 0, 2, 0, 0, -1, -1, 4, 4, 0, 0}));

  // The query (1, 2, 3, 4) has the products 0 1 2 12 and -7 6 8 0 with the centroids.
  const std::vector<float> query = {1, 2, 3, 4};
  std::vector<float> tables(8), scores(4);
  const MatView<float> of_tables(tables.data(), 1, 8);
  codec->project(MatView<const float>(query.data(), 1, 4), of_tables);
  EXPECT_EQ(tables, (std::vector<float>{0, 1, 2, 12, -7, 6, 8, 0}));
  codec->scores(of_tables, {.payload = payload.data()}, nullptr, MatView<float>(scores.data(), 1, 4));
  EXPECT_EQ(scores, (std::vector<float>{7, 20, -7, 12}));

  // Weights 1, 10, 100, 1000 by centroid: 100 1 0 1010 and 100 1 10 1000.
  const std::vector<float> weights = {1, 10, 100, 1000};
  std::vector<float> sums(8), out(4, 0.5f);
  const MatView<float> of_sums(sums.data(), 1, 8);
  codec->accumulate(MatView<const float>(weights.data(), 1, 4), {.payload = payload.data()}, nullptr,
                    of_sums);
  EXPECT_EQ(sums, (std::vector<float>{100, 1, 0, 1010, 100, 1, 10, 1000}));
  codec->lift(of_sums, MatView<float>(out.data(), 1, 4));
  EXPECT_EQ(out, (std::vector<float>{4041.5f, 4040.5f, -97.5f, -79.5f}));
}

TEST(Pq, ConformsInEveryShape) {
  const auto check = [](const PqShape& shape) {
    const auto codec = codec_of(shape, normal_numbers(shape.width * shape.entries(), 5));
    expect_conforming(*codec, shape.width, 6);
    const int64_t row = shape.bits == 8 ? shape.m : (shape.m * shape.bits + 7) / 8;
    EXPECT_GE(codec->bytes(64, shape.width), 64 * row);
    EXPECT_LE(codec->bytes(64, shape.width), 64 * (row + 2));
  };
  check({.width = 64, .m = 16, .bits = 8});
  check({.width = 64, .m = 64, .bits = 2});
  check({.width = 20, .m = 5, .bits = 3});
  check({.width = 80, .m = 8, .bits = 4});
  check({.width = 7, .m = 1, .bits = 8});
  check({.width = 6, .m = 6, .bits = 8});
}

// Against the nearest centroid found in double: never farther than what f32 cannot tell apart.
TEST(Pq, NoOtherCentroidIsNearer) {
  const PqShape shape{.width = 32, .m = 8, .bits = 8};
  const auto codebook = normal_numbers(shape.width * shape.entries(), 9);
  const auto codec = codec_of(shape, codebook);
  const auto rows = normal_numbers(40 * shape.width, 10);
  const auto read = decoded(*codec, encoded(*codec, rows, 40, shape.width), 40, shape.width);
  for (int64_t t = 0; t < 40; ++t)
    for (int64_t j = 0; j < shape.m; ++j) {
      const int64_t sub = shape.sub_width(), at = t * shape.width + j * sub;
      const auto distance = [&](const auto& centroid) {
        double sum = 0.0;
        for (int64_t i = 0; i < sub; ++i)
          sum += std::pow(double{rows[static_cast<std::size_t>(at + i)]} - centroid(i), 2);
        return sum;
      };
      const double chosen =
          distance([&](int64_t i) { return double{read[static_cast<std::size_t>(at + i)]}; });
      for (int64_t k = 0; k < shape.entries(); ++k) {
        const double other = distance([&](int64_t i) {
          return double{f32_from_f16(
              f16_from_f32(codebook[static_cast<std::size_t>((j * sub + i) * shape.entries() + k)]))};
        });
        ASSERT_GE(other, chosen - 1e-5);
      }
    }
}

// With as many tokens as centroids k-means has nothing to lose: every token of the text comes back, to f16.
TEST(Pq, LearnsASmallTextByHeart) {
  ThreadPool pool(2);
  const CacheShape shape{.layers = 2,
                         .kv_heads = 1,
                         .head_dim = 8,
                         .page_tokens = 4,
                         .basis = KeyBasis::kPlain,
                         .type = DType::kF32};
  const Projections source(shape, 4, 3);
  const PageSet sample =
      make_sample(shape, 1, [&](int, Side side, int64_t, int64_t, int64_t token, int64_t channel) {
        return (side == Side::kKey ? source.k : source.v)[static_cast<std::size_t>(token * 8 + channel)];
      });
  CompressedCache c("keys(plain); pq(m=2,bits=2)", pool, shape, &sample);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 4, 4);
  for (int layer = 0; layer < 2; ++layer)
    for (const Side side : {Side::kKey, Side::kValue}) {
      EXPECT_EQ(c.driver.cache.page({id, layer, 0, 0, side}).codec, "pq(m=2,bits=2)");
      const auto read = c.page(id, layer, 0, 0, side);
      const auto& expected = side == Side::kKey ? source.k : source.v;
      for (std::size_t i = 0; i < read.size(); ++i)
        ASSERT_EQ(read[i], f32_from_f16(f16_from_f32(expected[i]))) << i;
    }
  // Codes of 2 x 2 bits, 8 half centroid numbers for each of 4 centroids, 4 codebooks.
  const ByteLedger ledger = c.driver.cache.ledger();
  EXPECT_EQ(ledger.payload, 2 * 2 * 4);
  EXPECT_EQ(ledger.scales, 0);
  EXPECT_EQ(ledger.side, 4 * 8 * 4 * 2);
}

// Parts of one number make pq a scalar quantizer; k-means of normal numbers must come near the distortion of
// Lloyd and Max's optimum, 0.1175 at 2 bits and 0.03454 at 3 (Max 1960, table I).
TEST(Pq, ComesNearLloydMaxOnNormalNumbers) {
  for (const auto& [bits, optimum] : {std::pair{2, 0.1175}, std::pair{3, 0.03454}}) {
    ThreadPool pool(2);
    const CacheShape shape{.kv_heads = 2, .head_dim = 16, .page_tokens = 16, .type = DType::kF32};
    const PageSet sample = normal_sample(shape, 100, 12);
    CompressedCache c("side(v): pq(m=16,bits=" + std::to_string(bits) + ")", pool, shape, &sample);
    const Projections source(shape, 320, 13);
    const SequenceId id = c.driver.add(source);
    c.feed(id, 320, 64);
    double error = 0.0;
    int64_t count = 0;
    for (int64_t page = 0; page < 20; ++page) {
      const auto read = c.page(id, 0, 0, page, Side::kValue);
      for (int64_t t = 0; t < 16; ++t)
        for (int64_t i = 0; i < 16; ++i, ++count)
          error += std::pow(double{source.v[static_cast<std::size_t>(((page * 16 + t) * 2) * 16 + i)]} -
                                read[static_cast<std::size_t>(t * 16 + i)],
                            2);
    }
    error /= static_cast<double>(count);
    EXPECT_GT(error, 0.9 * optimum);
    EXPECT_LT(error, 1.1 * optimum);
  }
}

TEST(Pq, ExactBytesAndSameSeedSameBits) {
  const auto outcome = [](int threads, uint64_t seed) {
    ThreadPool pool(threads);
    const CacheShape shape{.layers = 2, .group = 3, .head_dim = 16, .type = DType::kF16};
    const PageSet sample = normal_sample(shape, 40, 14);
    CompressedCache c("pq(m=4)", pool, shape, &sample, seed);
    const Projections source(shape, 70, 15);
    const SequenceId id = c.driver.add(source);
    c.feed(id, 70, 16);
    const ByteLedger ledger = c.driver.cache.ledger();
    // Four full pages of 16 tokens a table, then 6 dense tokens; 8 tables of both layers, heads and sides.
    EXPECT_EQ(ledger.payload, 8 * (64 * 4 + 6 * 16 * 2));
    EXPECT_EQ(ledger.scales, 0);
    EXPECT_EQ(ledger.side, 4 * 256 * 16 * 2);
    return c.driver.output(id);
  };
  EXPECT_EQ(outcome(1, 7), outcome(3, 7));
  EXPECT_NE(outcome(1, 7), outcome(1, 8)) << "the seed does nothing";
}

TEST(Pq, RefusesWhatItCannotDo) {
  ThreadPool pool(1);
  const CacheShape shape{.head_dim = 16, .page_tokens = 16, .type = DType::kF16};
  const auto refused = [&](const std::string& recipe, const PageSet* sample) {
    return error_of([&] {
      CompressedCache c(recipe, pool, shape, sample);
      const Projections source(shape, 16, 1);
      c.feed(c.driver.add(source), 16, 16);
    });
  };
  const PageSet good = normal_sample(shape, 10, 1), none = normal_sample(shape, 0, 1);
  const PageSet huge =
      make_sample(shape, 10, [](int, Side, int64_t, int64_t, int64_t, int64_t) { return 1e6f; });
  PageSet nan = make_sample(shape, 10, [](int, Side, int64_t, int64_t, int64_t, int64_t) {
    return std::numeric_limits<float>::quiet_NaN();
  });
  EXPECT_EQ(refused("pq(m=4)", &good), "no error");
  EXPECT_THAT(refused("pq(m=5)", &good),
              AllOf(HasSubstr("pq(m=5)"), HasSubstr("divisor of 16"), HasSubstr("m=4")));
  EXPECT_THAT(refused("pq(m=32)", &good), HasSubstr("use m=16"));
  EXPECT_THAT(refused("pq(m=4)", &none), AllOf(HasSubstr("calibration text"), HasSubstr("16 tokens")));
  EXPECT_THAT(refused("pq(m=4)", &huge), AllOf(HasSubstr("layer 0"), HasSubstr("f16")));
  EXPECT_THAT(refused("pq(m=4)", &nan), AllOf(HasSubstr("layer 0"), HasSubstr("finite")));
  const PageSet few = normal_sample(shape, 2, 1);
  EXPECT_THAT(refused("pq(m=4)", &few), AllOf(HasSubstr("at least 128 tokens"), HasSubstr("found 32")));
  EXPECT_EQ(refused("pq(m=4,bits=4)", &few), "no error");
}

TEST(Pq, NeverLearnsFromTheTextItCompresses) {
  ThreadPool pool(1);
  const CacheShape shape{.head_dim = 16, .type = DType::kF16};
  CacheDriver driver(shape, pool);
  Compressor compressor(Recipe::parse("pq(m=4)"), driver.cache, pool);
  EXPECT_TRUE(compressor.needs_sample());
  const Projections source(shape, 16, 1);
  const SequenceId id = driver.add(source);
  const Batch batch = driver.step({{id, 16}});
  EXPECT_THAT(error_of([&] { compressor.after_step(batch, {}); }),
              AllOf(HasSubstr("pq"), HasSubstr("calibration text"), HasSubstr("found none")));
}

}  // namespace
}  // namespace kva
