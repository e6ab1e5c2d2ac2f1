// Pages with outliers, coded by the device's lanes: the codec's bytes, whichever numbers are equally far.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "compressors/codecs/quant_codec.h"
#include "tests/compressors/codecs/coded_by_lanes.h"

namespace kva {
namespace {

constexpr DType kTypes[] = {DType::kF16, DType::kBF16, DType::kF32};

enum class Numbers { kNormal, kFewSizes, kEqual, kZeros, kWide };
constexpr Numbers kNumbers[] = {Numbers::kNormal, Numbers::kFewSizes, Numbers::kEqual, Numbers::kZeros,
                                Numbers::kWide};

// With channels of other means and sizes, as keys have them; of few sizes, so that many are equally far; all
// one; zeros of both signs; and from the least that f16 holds to nearly the largest.
std::vector<float> page_of(Numbers numbers, int64_t tokens, int64_t width, unsigned seed) {
  std::vector<float> rows = normal_rows(tokens * width, seed);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto channel = static_cast<float>(i % static_cast<std::size_t>(width) % 7);
    switch (numbers) {
      case Numbers::kNormal: rows[i] = rows[i] * (1.0f + channel) + 10.0f * channel; break;
      case Numbers::kFewSizes: rows[i] = std::copysign(rows[i] > 1.0f ? 2.0f : 1.0f, rows[i] - 0.5f); break;
      case Numbers::kEqual: rows[i] = -1.5f; break;
      case Numbers::kZeros: rows[i] = rows[i] > 2.0f ? 1.0f : std::copysign(0.0f, rows[i]); break;
      case Numbers::kWide:
        rows[i] = std::copysign(std::ldexp(1.0f, static_cast<int>(rows[i] * 20.0f) % 40 - 24), rows[i]);
        if (i % 61 == 0) rows[i] = i % 2 ? 65280.0f : -65280.0f;
        break;
    }
  }
  return rows;
}

void expect_codes(const QuantFormat& format, int64_t tokens, int64_t width, Numbers numbers, DType type) {
  const auto codec = make_quant_codec(format);
  const OpenRows rows(page_of(numbers, tokens, width, static_cast<unsigned>(tokens + width)), width, type);
  const CodedByLanes coded = coded_by_lanes(*codec, rows);
  ASSERT_FALSE(coded.refused);
  ASSERT_EQ(coded.payload, encoded_by(*codec, rows.view()))
      << codec->name() << (format.symmetric ? ", symmetric, " : ", ") << format.outliers << " outliers, "
      << tokens << " tokens, width " << width << ", numbers " << static_cast<int>(numbers) << ", "
      << dtype_name(type);
}

std::vector<QuantFormat> formats() {
  std::vector<QuantFormat> all;
  for (const int bits : {8, 4, 3, 2})
    for (const bool by_channel : {false, true})
      for (const bool symmetric : {false, true})
        all.push_back({.bits = bits,
                       .axis = by_channel ? ScaleAxis::kChannel : ScaleAxis::kToken,
                       .symmetric = symmetric,
                       .for_keys = by_channel});
  return all;
}

// None, one, few, more than a share of the page is looked at again for, and all.
constexpr double kShares[] = {0.0, 1e-6, 0.01, 0.1, 1.0};

TEST(OutlierCodes, OfSmallPages) {
  std::size_t i = 0;
  for (QuantFormat format : formats())
    for (const int64_t tokens : {1, 8, 15, 16, 17})
      for (const int64_t width : {8, 64, 80})
        for (const double share : kShares)
          for (const Numbers numbers : kNumbers) {
            format.outliers = share;
            expect_codes(format, tokens, width, numbers, kTypes[i++ % 3]);
          }
}

// Each of them with some of all there is.
TEST(OutlierCodes, OfLargePages) {
  std::size_t i = 0;
  for (QuantFormat format : formats())
    for (const int64_t tokens : {16, 64, 256})
      for (const int64_t width : {128, 256})
        for (const Numbers numbers : kNumbers) {
          format.outliers = kShares[i % 5];
          expect_codes(format, tokens, width, numbers, kTypes[i % 3]);
          i += 7;
        }
}

// Groups that are not packed rows, and channels that are kept whole.
TEST(OutlierCodes, BesideOtherThings) {
  for (QuantFormat format : formats())
    for (const int64_t group : {0, 5, 40})
      for (const double share : kShares)
        for (const Numbers numbers : kNumbers) {
          format.group = group;
          format.dense_channels = 3;
          format.outliers = share;
          expect_codes(format, 33, 64, numbers, DType::kF16);
          format.for_keys = !format.for_keys;
          format.dense_channels = 0;
          expect_codes(format, 24, 48, numbers, DType::kF32);
        }
}

// What is left of a page counts for nothing once a number is refused; that one is, wherever it stands, must
// show.
TEST(OutlierCodes, AreRefusedWithAnyNumber) {
  for (const QuantFormat& of : formats())
    for (const float bad : {NAN, INFINITY, -INFINITY, 65536.0f})
      for (const std::size_t place : {0, 517, 1023}) {
        QuantFormat format = of;
        format.outliers = 0.05;
        std::vector<float> numbers = page_of(Numbers::kNormal, 16, 64, 1);
        numbers[place] = bad;
        EXPECT_TRUE(coded_by_lanes(*make_quant_codec(format), OpenRows(numbers, 64, DType::kF32)).refused)
            << bad;
      }
}

}  // namespace
}  // namespace kva
