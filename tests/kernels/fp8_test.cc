#include "kernels/fp8.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/dense_rows.h"
#include "kernels/dtype.h"
#include "tests/kernels/simd_targets.h"

namespace kva {
namespace {

constexpr Fp8 kBoth[] = {Fp8::kE4M3, Fp8::kE5M2};

// The definition: sign, exponent with its bias, mantissa.
double value_of(int code, Fp8 type) {
  const int mantissa_bits = type == Fp8::kE4M3 ? 3 : 2;
  const int bias = type == Fp8::kE4M3 ? 7 : 15;
  const double sign = code & 0x80 ? -1.0 : 1.0;
  const int exponent = (code & 0x7f) >> mantissa_bits;
  const int mantissa = code & ((1 << mantissa_bits) - 1);
  if (type == Fp8::kE4M3 && (code & 0x7f) == 0x7f) return std::nan("");
  if (type == Fp8::kE5M2 && exponent == 31) return mantissa ? std::nan("") : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

TEST(Fp8, EveryCodeIsWhatTheStandardSays) {
  EXPECT_EQ(f32_from_fp8(0x7e, Fp8::kE4M3), 448.0f);
  EXPECT_EQ(f32_from_fp8(0x01, Fp8::kE4M3), 0x1p-9f);
  EXPECT_EQ(f32_from_fp8(0x7b, Fp8::kE5M2), 57344.0f);
  EXPECT_EQ(f32_from_fp8(0x01, Fp8::kE5M2), 0x1p-16f);
  std::vector<uint8_t> codes(256);
  for (int i = 0; i < 256; ++i) codes[static_cast<std::size_t>(i)] = static_cast<uint8_t>(i);
  for (const Fp8 type : kBoth) {
    for_each_simd_target([&] {
      std::vector<float> values(257, 12345.0f);
      fp8_to_f32(codes.data(), type, values.data(), 256);
      EXPECT_EQ(values[256], 12345.0f);
      for (int i = 0; i < 256; ++i) {
        const double expected = value_of(i, type);
        for (const float value :
             {values[static_cast<std::size_t>(i)], f32_from_fp8(codes[static_cast<std::size_t>(i)], type)}) {
          if (std::isnan(expected))
            ASSERT_TRUE(std::isnan(value)) << i;
          else
            ASSERT_EQ(value, expected) << i;
        }
      }
    });
  }
}

TEST(Fp8, RoundsToTheNearestAndTiesToEven) {
  std::mt19937 random(1);
  for (const Fp8 type : kBoth) {
    const int last = type == Fp8::kE4M3 ? 0x7e : 0x7b;
    for (int code = 0; code < last; ++code) {
      const double low = value_of(code, type), high = value_of(code + 1, type);
      EXPECT_EQ(fp8_from_f32(static_cast<float>(low), type), code);
      EXPECT_EQ(fp8_from_f32(static_cast<float>(-low), type), code | 0x80);
      const auto tie = static_cast<float>((low + high) / 2);
      EXPECT_EQ(fp8_from_f32(tie, type), code % 2 ? code + 1 : code) << tie;
      EXPECT_EQ(fp8_from_f32(std::nextafter(tie, -1.0f), type), code) << tie;
      EXPECT_EQ(fp8_from_f32(std::nextafter(tie, 1e9f), type), code + 1) << tie;
    }
  }
}

TEST(Fp8, SaturatesAndKeepsNaN) {
  for (const float huge : {449.0f, 464.0f, 1e6f, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(fp8_from_f32(huge, Fp8::kE4M3), 0x7e) << huge;
    EXPECT_EQ(fp8_from_f32(-huge, Fp8::kE4M3), 0xfe) << huge;
  }
  EXPECT_EQ(fp8_from_f32(1e6f, Fp8::kE5M2), 0x7b);
  EXPECT_EQ(fp8_from_f32(-std::numeric_limits<float>::infinity(), Fp8::kE5M2), 0xfb);
  EXPECT_EQ(fp8_from_f32(-0.0f, Fp8::kE4M3), 0x80);
  EXPECT_EQ(fp8_from_f32(1e-30f, Fp8::kE4M3), 0);
  for (const Fp8 type : kBoth) EXPECT_TRUE(std::isnan(f32_from_fp8(fp8_from_f32(std::nanf(""), type), type)));
}

// Every half, its neighbours on both sides, and lengths that no vector divides.
TEST(Fp8, ManyAtOnceAreTheSameAsOneByOne) {
  std::vector<float> values;
  for (int bits = 0; bits < 65536; ++bits) {
    const float value = f32_from_f16(static_cast<uint16_t>(bits));
    values.insert(values.end(), {value, std::nextafter(value, -INFINITY), std::nextafter(value, INFINITY)});
  }
  for (const Fp8 type : kBoth) {
    std::vector<uint8_t> expected;
    for (const float value : values) expected.push_back(fp8_from_f32(value, type));
    for_each_simd_target([&] {
      for (const std::size_t count : {values.size(), std::size_t{0}, std::size_t{1}, std::size_t{37}}) {
        std::vector<uint8_t> codes(values.size() + 1, 0xa5);
        fp8_from_f32(values.data(), type, codes.data(), static_cast<int64_t>(count));
        ASSERT_TRUE(std::equal(expected.begin(), expected.begin() + static_cast<std::ptrdiff_t>(count),
                               codes.begin()));
        ASSERT_EQ(codes[count], 0xa5);
      }
    });
  }
}

// The same sums of so many products of normal numbers, rounded here and there in another place.
void expect_near(const std::vector<float>& a, const std::vector<float>& b, double products) {
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], products * products * 0x1p-23) << i;
}

TEST(Fp8, OneNaNReachesItsScoreAndItsChannelOnly) {
  constexpr int64_t kTokens = 6, kDim = 37;
  for_each_simd_target([] {
    for (const int64_t place : {int64_t{0}, 3 * kDim + 5, kTokens * kDim - 1})
      for (const uint8_t nan : {uint8_t{0x7f}, uint8_t{0xff}}) {
        std::vector<uint8_t> stored(kTokens * kDim, fp8_from_f32(448.0f, Fp8::kE4M3));
        stored[static_cast<std::size_t>(place)] = nan;
        const std::vector<float> ones(kDim, 1.0f);
        std::vector<float> scores(kTokens), out(kDim, 1.0f);
        fp8_scores({ones.data(), 1, kDim}, stored.data(), Fp8::kE4M3, {scores.data(), 1, kTokens});
        fp8_accumulate({ones.data(), 1, kTokens}, stored.data(), Fp8::kE4M3, {out.data(), 1, kDim});
        for (int64_t t = 0; t < kTokens; ++t)
          EXPECT_EQ(std::isnan(scores[static_cast<std::size_t>(t)]), t == place / kDim) << place;
        for (int64_t c = 0; c < kDim; ++c)
          EXPECT_EQ(std::isnan(out[static_cast<std::size_t>(c)]), c == place % kDim) << place;
      }
  });
}

TEST(Fp8, ProductsEqualThoseOfTheWidenedRows) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (const Fp8 type : kBoth) {
    for (const int64_t dim : {5, 64, 72}) {
      constexpr int64_t kTokens = 13, kQueries = 5;
      std::vector<uint8_t> stored(static_cast<std::size_t>(kTokens * dim));
      for (uint8_t& code : stored) code = fp8_from_f32(normal(random), type);
      std::vector<float> wide(stored.size());
      fp8_to_f32(stored.data(), type, wide.data(), kTokens * dim);
      std::vector<float> queries(static_cast<std::size_t>(kQueries * dim)), weights(kQueries * kTokens);
      for (float& value : queries) value = normal(random);
      for (float& value : weights) value = normal(random);
      for_each_simd_target([&] {
        std::vector<float> scores(kQueries * kTokens), expected(kQueries * kTokens);
        fp8_scores({queries.data(), kQueries, dim}, stored.data(), type, {scores.data(), kQueries, kTokens});
        dense_scores({queries.data(), kQueries, dim}, wide.data(), DType::kF32,
                     {expected.data(), kQueries, kTokens});
        expect_near(scores, expected, static_cast<double>(dim));
        std::vector<float> out(queries), expected_out(queries);
        fp8_accumulate({weights.data(), kQueries, kTokens}, stored.data(), type, {out.data(), kQueries, dim});
        dense_accumulate({weights.data(), kQueries, kTokens}, wide.data(), DType::kF32,
                         {expected_out.data(), kQueries, dim});
        expect_near(out, expected_out, kTokens);
      });
    }
  }
}

}  // namespace
}  // namespace kva
