#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "compressors/codecs/codebook_codec.h"
#include "compressors/codecs/rotation_codec.h"
#include "kernels/convert.h"
#include "tests/compressors/compressed_cache.h"
#include "tests/compressors/format_conformance.h"
#include "tests/error_of.h"

namespace kva {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::shared_ptr<SideMemory> memory() { return std::make_shared<SideMemory>(make_cpu_backend()); }

std::shared_ptr<const SideCodec> length_codec(int bits, const std::vector<float>& levels) {
  return make_codebook_codec(
      {.name = "turboquant", .bits = bits, .scaling = CodebookFormat::Scaling::kLength},
      std::make_shared<const SideArray>(make_f16_array(memory(), levels, "levels")));
}

std::shared_ptr<const SideCodec> turned_codec(int bits, int64_t width, TurnedReading reading,
                                              uint64_t seed = 1) {
  const std::vector<double> levels = lloyd_max_levels(bits);
  return make_rotation_codec(
      length_codec(bits, std::vector<float>(levels.begin(), levels.end())),
      std::make_shared<const SideArray>(make_f16_array(memory(), random_rotation(width, seed), "rotation")),
      reading);
}

// Levels -3, -1, 1, 3 and no rotation. (2, 2, 2, 2) has a root mean square of 2, so all its numbers are 1,
// and its length 4 is twice that of (1, 1, 1, 1). (3, 3, -1, 1) has a root mean square of 5^0.5: 1.34, 1.34,
// -0.45 and 0.45 become 1, 1, -1, 1 of length 2, and 20^0.5 / 2 is their scale.
TEST(TurboQuant, KeepsLengthsAsWorkedOutByHand) {
  const auto codec = length_codec(2, {-3, -1, 1, 3});
  const std::vector<float> rows = {2, 2, 2, 2, 3, 3, -1, 1, 0, 0, 0, 0};
  const auto payload = encoded(*codec, rows, 3, 4);
  EXPECT_EQ(codec->bytes(3, 4), 3 * (2 + 1));
  EXPECT_EQ(codec->scale_bytes(3, 4), 3 * 2);
  const float scale = f32_from_f16(f16_from_f32(std::sqrt(5.0f)));
  std::vector<std::byte> expected(9);
  const std::vector<float> scales = {2, scale, 0};
  from_f32(scales.data(), DType::kF16, expected.data(), 3);
  expected[6] = std::byte{0b10101010};
  expected[7] = std::byte{0b10011010};
  expected[8] = std::byte{0b01010101};
  EXPECT_EQ(payload, expected);
  EXPECT_EQ(decoded(*codec, payload, 3, 4),
            (std::vector<float>{2, 2, 2, 2, scale, scale, -scale, scale, 0, 0, 0, 0}));
}

TEST(TurboQuant, RotationsAreOrthogonalAndSeeded) {
  for (const int64_t width : {1, 4, 20, 64}) {
    const auto rotation = random_rotation(width, 3);
    for (int64_t a = 0; a < width; ++a)
      for (int64_t b = 0; b < width; ++b) {
        double dot = 0.0;
        for (int64_t i = 0; i < width; ++i)
          dot += double{rotation[static_cast<std::size_t>(a * width + i)]} *
                 rotation[static_cast<std::size_t>(b * width + i)];
        ASSERT_NEAR(dot, a == b ? 1.0 : 0.0, 1e-6);
      }
    EXPECT_EQ(rotation, random_rotation(width, 3));
    if (width > 1) {
      EXPECT_NE(rotation, random_rotation(width, 4));
    }
  }
}

// The axes of a 2-bit page: (1, 0) turned by a quarter is (0, 1) or (0, -1), with a rotation made by hand.
TEST(TurboQuant, TurnsThereAndBack) {
  const std::vector<float> quarter = {0, -1, 1, 0};
  const auto rotation = std::make_shared<const SideArray>(make_f16_array(memory(), quarter, "rotation"));
  const auto codec = make_rotation_codec(make_dense_codec(DType::kF32), rotation, TurnedReading::kTurned);
  const std::vector<float> rows = {1, 2, 3, 4};
  const auto payload = encoded(*codec, rows, 2, 2);
  std::vector<float> stored(4);
  to_f32(payload.data(), DType::kF32, stored.data(), 4);
  EXPECT_EQ(stored, (std::vector<float>{-2, 1, -4, 3}));
  EXPECT_EQ(decoded(*codec, payload, 2, 2), rows);
}

TEST(TurboQuant, ConformsInEveryShape) {
  for (const int bits : {2, 3, 4, 8})
    for (const int64_t width : {64, 20, 80, 7}) {
      expect_conforming(*turned_codec(bits, width, TurnedReading::kTurned), width, 6);
      expect_conforming(*turned_codec(bits, width, TurnedReading::kTurnedBack), width, 6);
    }
}

// The squared error over the squared length, which must have come back: but for f16, to which it and the
// rotation are rounded.
double token_error(const float* token, const float* read, int64_t width) {
  double error = 0.0, squares = 0.0, read_squares = 0.0;
  for (int64_t c = 0; c < width; ++c) {
    error += std::pow(double{token[c]} - read[c], 2);
    squares += std::pow(double{token[c]}, 2);
    read_squares += std::pow(double{read[c]}, 2);
  }
  EXPECT_NEAR(std::sqrt(read_squares / squares), 1.0, 2e-3);
  return error / squares;
}

// Max's distortion D of a normal number (1960, table I: 0.1175, 0.03454, 0.009497) leaves (1 - D)^0.5 of the
// direction; with the length put right that is a squared error of 2 - 2 (1 - D)^0.5 a unit of length.
// Whatever the tokens were: here normal numbers, and tokens with one number a hundred times the others.
TEST(TurboQuant, ErrsAsThePaperSaysWhateverTheTokens) {
  constexpr int64_t kWidth = 128, kTokens = 128;
  constexpr uint64_t kRotations = 8;
  for (const auto& [bits, distortion] : {std::pair{2, 0.1175}, std::pair{3, 0.03454}, std::pair{4, 0.009497}})
    for (const bool spiked : {false, true}) {
      auto rows = normal_numbers(kTokens * kWidth, 30);
      if (spiked)
        for (int64_t t = 0; t < kTokens; ++t)
          rows[static_cast<std::size_t>(t * kWidth + t % kWidth)] = 100.0f;
      double mean = 0.0;
      for (uint64_t seed = 1; seed <= kRotations; ++seed) {
        const auto codec = turned_codec(bits, kWidth, TurnedReading::kTurned, seed);
        const auto read = decoded(*codec, encoded(*codec, rows, kTokens, kWidth), kTokens, kWidth);
        for (int64_t t = 0; t < kTokens; ++t)
          mean += token_error(rows.data() + t * kWidth, read.data() + t * kWidth, kWidth) /
                  static_cast<double>(kTokens * kRotations);
      }
      const double expected = 2.0 - 2.0 * std::sqrt(1.0 - distortion);
      EXPECT_NEAR(mean, expected, 0.05 * expected) << bits << " bits" << (spiked ? ", spiked" : "");
    }
}

TEST(TurboQuant, ExactBytesAnyThreadCountSameBitsAndTheSeedCounts) {
  const auto outcome = [](int threads, uint64_t seed) {
    ThreadPool pool(threads);
    const CacheShape shape{.layers = 2, .group = 3, .head_dim = 16, .type = DType::kF16};
    CompressedCache c("turboquant(bits=4)", pool, shape, nullptr, seed);
    const Projections source(shape, 70, 15);
    const SequenceId id = c.driver.add(source);
    c.feed(id, 70, 16);
    EXPECT_EQ(c.driver.cache.page({id, 0, 0, 0, Side::kKey}).codec, "turboquant(4)");
    const ByteLedger ledger = c.driver.cache.ledger();
    // Four full pages of 16 tokens a table, then 6 dense tokens; 8 tables of both layers, heads and sides.
    EXPECT_EQ(ledger.payload, 8 * (64 * 16 / 2 + 6 * 16 * 2));
    EXPECT_EQ(ledger.scales, 8 * 64 * 2);
    // One rotation and one codebook for all of them.
    const Backend& backend = c.driver.cache.backend();
    EXPECT_EQ(ledger.side, backend.held_bytes(16 * 16 * 2) + backend.held_bytes(16 * 2));
    return c.driver.output(id);
  };
  EXPECT_EQ(outcome(1, 7), outcome(3, 7));
  EXPECT_NE(outcome(1, 7), outcome(1, 8)) << "the seed does nothing";
}

TEST(TurboQuant, RefusesPlainKeysAndNumbersThatAreNotFinite) {
  const auto refused = [](const std::string& recipe) {
    return error_of([&] { (void)Recipe::parse(recipe); });
  };
  EXPECT_THAT(refused("keys(plain); turboquant"), AllOf(HasSubstr("turboquant"), HasSubstr("keys(plain)")));
  EXPECT_EQ(refused("keys(plain); side(v): turboquant"), "no error");
  EXPECT_EQ(refused("keys(page-relative); turboquant"), "no error");

  ThreadPool pool(1);
  const CacheShape shape{.head_dim = 16, .type = DType::kF32};
  for (const float spoilt : {std::numeric_limits<float>::quiet_NaN(), 1e30f}) {
    CompressedCache c("turboquant", pool, shape);
    Projections source(shape, 16, 1);
    source.v[3] = spoilt;
    EXPECT_THAT(error_of([&] { c.feed(c.driver.add(source), 16, 16); }),
                AllOf(HasSubstr("layer 0, KV head 0, V"), HasSubstr("finite numbers within f16")));
  }
}

}  // namespace
}  // namespace kva
