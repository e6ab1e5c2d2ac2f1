#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "compressors/codecs/codebook_codec.h"
#include "kernels/convert.h"
#include "tests/compressors/compressed_cache.h"
#include "tests/compressors/format_conformance.h"
#include "tests/error_of.h"

namespace kva {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::shared_ptr<const SideCodec> codec_of(int bits, ScaleAxis axis, const std::vector<float>& levels,
                                          double outliers = 0.0) {
  return make_codebook_codec({.name = "nuq", .bits = bits, .axis = axis, .outliers = outliers},
                             std::make_shared<const SideArray>(make_f16_array(
                                 std::make_shared<SideMemory>(make_cpu_backend()), levels, "levels")));
}

std::vector<float> even_levels(int bits) {
  std::vector<float> levels;
  for (int i = 0; i < 1 << bits; ++i) levels.push_back(static_cast<float>(2.0 * i / ((1 << bits) - 1) - 1.0));
  return levels;
}

TEST(Nuq, StoresATokenAsWorkedOutByHand) {
  const auto codec = codec_of(2, ScaleAxis::kToken, {-1.0f, -0.25f, 0.25f, 1.0f});
  // [0, 8] is 4 + 4 [-1, 1]: the numbers lie at -1, -0.75, -0.25 and 1. The second token's at -1, 0.125,
  // 1, 1.
  const std::vector<float> rows = {0, 1, 3, 8, -2, 1.375f, 4, 4};
  const auto payload = encoded(*codec, rows, 2, 4);
  EXPECT_EQ(codec->bytes(2, 4), 2 * (2 + 2 + 1));
  EXPECT_EQ(codec->scale_bytes(2, 4), 2 * (2 + 2));
  std::vector<std::byte> expected(10);
  const std::vector<float> scales = {4, 3}, offsets = {4, 1};
  from_f32(scales.data(), DType::kF16, expected.data(), 2);
  from_f32(offsets.data(), DType::kF16, expected.data() + 4, 2);
  expected[8] = std::byte{0b11010000};
  expected[9] = std::byte{0b11111000};
  EXPECT_EQ(payload, expected);
  EXPECT_EQ(decoded(*codec, payload, 2, 4), (std::vector<float>{0, 0, 3, 8, -2, 1.75f, 4, 4}));
}

TEST(Nuq, StoresAChannelAsWorkedOutByHand) {
  const auto codec = codec_of(2, ScaleAxis::kChannel, {-1.0f, -0.25f, 0.25f, 1.0f});
  // The same numbers down the columns; the third channel is constant.
  const std::vector<float> rows = {0, -2, 5, 1, 1.375f, 5, 3, 4, 5, 8, 4, 5};
  const auto payload = encoded(*codec, rows, 4, 3);
  EXPECT_EQ(codec->bytes(4, 3), 3 * (2 + 2) + 4);
  EXPECT_EQ(decoded(*codec, payload, 4, 3), (std::vector<float>{0, -2, 5, 0, 1.75f, 5, 3, 4, 5, 8, 4, 5}));
}

// 100 stands out from its token; without it the numbers are those worked out above. The list: its place, 2,
// and 100 itself.
TEST(Nuq, KeepsOutliersBesideTheCodes) {
  const auto codec = codec_of(2, ScaleAxis::kToken, {-1.0f, -0.25f, 0.25f, 1.0f}, 0.1);
  const std::vector<float> rows = {0, 1, 100, 3, 8, -2, 1.375f, 1.375f, 4, 4};
  const auto payload = encoded(*codec, rows, 2, 5);
  EXPECT_EQ(codec->scale_bytes(2, 5), 2 * (2 + 2) + 2 + 2);
  EXPECT_EQ(codec->bytes(2, 5), 2 * (2 + 2) + 2 + 2 + 2 * packed_row_bytes(2, 5));
  uint16_t place = 0, value = 0;
  std::memcpy(&place, payload.data() + 8, 2);
  std::memcpy(&value, payload.data() + 10, 2);
  EXPECT_EQ(place, 2);
  EXPECT_EQ(f32_from_f16(value), 100.0f);
  EXPECT_EQ(decoded(*codec, payload, 2, 5), (std::vector<float>{0, 0, 100, 3, 8, -2, 1.75f, 1.75f, 4, 4}));
}

TEST(Nuq, ConformsInEveryShape) {
  for (const int bits : {2, 3, 4, 8})
    for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
      for (const int64_t width : {64, 20, 80, 7})
        for (const double outliers : {0.0, 0.01, 0.5}) {
          const auto codec = codec_of(bits, axis, even_levels(bits), outliers);
          expect_conforming(*codec, width, 6);
          EXPECT_EQ(codec->bytes(0, width), 0);
        }
}

// A number is at most half the widest gap between levels from its own, or as far as an end level is from the
// end of the range; and scale and offset are rounded to f16.
TEST(Nuq, ErrsByHalfAGapAtMost) {
  const std::vector<float> levels = {-0.9f, -0.4f, -0.1f, 0.0f, 0.1f, 0.35f, 0.6f, 0.95f};
  const double gap = 0.25;  // between -0.9 and -0.4
  const auto rows = normal_numbers(64 * 32, 5);
  for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel}) {
    const auto codec = codec_of(3, axis, levels);
    const auto read = decoded(*codec, encoded(*codec, rows, 64, 32), 64, 32);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      double low = 1e9, high = -1e9;
      for (std::size_t j = 0; j < rows.size(); ++j) {
        const bool same = axis == ScaleAxis::kToken ? j / 32 == i / 32 : j % 32 == i % 32;
        if (!same) continue;
        low = std::min(low, double{rows[j]});
        high = std::max(high, double{rows[j]});
      }
      const double half = 0.5 * (high - low);
      ASSERT_LE(std::abs(read[i] - rows[i]), half * gap + (half + std::abs(high) + std::abs(low)) * 0x1p-10);
    }
  }
}

// Tokens (-1, 0.2, 0.5, 1) and (-1, 0.3, 0.5, 1) have five numbers for four levels: 0.2 and 0.3 share one,
// half between them, or nearer to the token that more attention goes to.
TEST(Nuq, WeightsNumbersByTheirTokensAttention) {
  ThreadPool pool(2);
  const CacheShape shape{.kv_heads = 1, .head_dim = 4, .page_tokens = 2, .type = DType::kF32, .rope = false};
  const float first[] = {-1.0f, 0.2f, 0.5f, 1.0f}, second[] = {-1.0f, 0.3f, 0.5f, 1.0f};
  PageSet sample = make_sample(shape, 3, [&](int, Side, int64_t, int64_t, int64_t token, int64_t channel) {
    return (token == 0 ? first : second)[channel];
  });
  Projections source(shape, 2, 1);
  std::copy_n(first, 4, source.v.begin());
  std::copy_n(second, 4, source.v.begin() + 4);
  const auto stored = [&] {
    CompressedCache c("side(v): nuq(bits=2,outliers=0,axes=token)", pool, shape, &sample);
    const SequenceId id = c.driver.add(source);
    c.feed(id, 2, 2);
    return c.page(id, 0, 0, 0, Side::kValue);
  };
  const auto half = [](double x) { return f32_from_f16(f16_from_f32(static_cast<float>(x))); };
  EXPECT_EQ(stored(), (std::vector<float>{-1, half(0.25), 0.5f, 1, -1, half(0.25), 0.5f, 1}));
  const std::vector<float> mass = {3, 1, 3, 1, 3, 1};
  sample.attention_mass = {mass.data()};
  EXPECT_EQ(stored(), (std::vector<float>{-1, half(0.225), 0.5f, 1, -1, half(0.225), 0.5f, 1}));
}

TEST(Nuq, LevelsOfNormalNumbersAreNotEven) {
  const auto error = [&](bool learn) {
    const auto rows = normal_numbers(64 * 32, 100);
    NumberHistogram histogram;
    if (learn)
      for (uint64_t page = 0; page < 20; ++page) {
        const auto text = normal_numbers(64 * 32, page);
        add_scaled({.axis = ScaleAxis::kChannel}, MatView<const float>(text.data(), 64, 32), nullptr,
                   histogram);
      }
    const auto codec = codec_of(3, ScaleAxis::kChannel, learn ? histogram.levels(8) : even_levels(3));
    const auto read = decoded(*codec, encoded(*codec, rows, 64, 32), 64, 32);
    double sum = 0.0;
    for (std::size_t i = 0; i < rows.size(); ++i) sum += std::pow(double{rows[i]} - read[i], 2);
    return sum / static_cast<double>(rows.size());
  };
  // Uniform steps of a range of about 4.8: (4.8 / 7)^2 / 12 = 0.039. Lloyd-Max: 0.0345.
  EXPECT_LT(error(true), 0.92 * error(false));
}

TEST(Nuq, ExactBytesAndAnyThreadCountSameBits) {
  const auto outcome = [](int threads) {
    ThreadPool pool(threads);
    const CacheShape shape{.layers = 2, .group = 3, .head_dim = 16, .type = DType::kF16};
    CompressedCache c("nuq(bits=4,outliers=0.05)", pool, shape);
    const Projections source(shape, 70, 15);
    const SequenceId id = c.driver.add(source);
    c.feed(id, 70, 16);
    EXPECT_EQ(c.driver.cache.page({id, 0, 0, 0, Side::kKey}).codec, "nuq(bits=4,outliers=0.05,axes=channel)");
    EXPECT_EQ(c.driver.cache.page({id, 0, 0, 0, Side::kValue}).codec, "nuq(bits=4,outliers=0.05,axes=token)");
    const ByteLedger ledger = c.driver.cache.ledger();
    // Four full pages of 16 tokens a table, then 6 dense tokens; 8 tables of both layers, heads and sides.
    EXPECT_EQ(ledger.payload, 8 * (64 * 16 / 2 + 6 * 16 * 2));
    // A scale and an offset for each of 16 channels or tokens of a page, and 13 of its 256 numbers.
    EXPECT_EQ(ledger.scales, 8 * 4 * (16 * 4 + 14 + 13 * 2));
    EXPECT_EQ(ledger.side, 4 * c.driver.cache.backend().held_bytes(16 * 2));
    return c.driver.output(id);
  };
  EXPECT_EQ(outcome(1), outcome(3));
}

TEST(Nuq, RefusesWhatItCannotDo) {
  ThreadPool pool(1);
  const CacheShape shape{.head_dim = 16, .type = DType::kF16};
  const auto refused = [&](const PageSet* sample, float spoilt) {
    return error_of([&] {
      CompressedCache c("nuq", pool, shape, sample);
      Projections source(shape, 16, 1);
      source.v[3] = spoilt;
      c.feed(c.driver.add(source), 16, 16);
    });
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const PageSet good = normal_sample(shape, 2, 1), none = normal_sample(shape, 0, 1);
  const PageSet bad =
      make_sample(shape, 1, [&](int, Side, int64_t, int64_t, int64_t, int64_t) { return nan; });
  EXPECT_EQ(refused(&good, 0.0f), "no error");
  EXPECT_THAT(refused(&good, nan), AllOf(HasSubstr("layer 0, KV head 0, V"), HasSubstr("finite")));
  EXPECT_THAT(refused(&none, 0.0f), AllOf(HasSubstr("nuq"), HasSubstr("calibration text")));
  EXPECT_THAT(refused(&bad, 0.0f), AllOf(HasSubstr("nuq"), HasSubstr("finite")));
}

TEST(Nuq, NeverLearnsFromTheTextItCompresses) {
  ThreadPool pool(1);
  const CacheShape shape{.head_dim = 16, .type = DType::kF16};
  CacheDriver driver(shape, pool);
  Compressor compressor(Recipe::parse("nuq"), driver.cache, pool);
  const Projections source(shape, 16, 1);
  const SequenceId id = driver.add(source);
  const Batch batch = driver.step({{id, 16}});
  EXPECT_THAT(error_of([&] { compressor.after_step(batch, {}); }),
              AllOf(HasSubstr("nuq"), HasSubstr("calibration text"), HasSubstr("found none")));
}

}  // namespace
}  // namespace kva
