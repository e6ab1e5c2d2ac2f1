#include "kernels/direction_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <random>
#include <vector>

namespace kva {
namespace {

TEST(DirectionMath, SinesAreTheLibrarys) {
  for (int i = 0; i <= 20000; ++i) {
    const double angle = std::numbers::pi * i / 20000;
    ASSERT_NEAR(sine_of(angle), std::sin(angle), 1e-15) << angle;
  }
  EXPECT_EQ(sine_of(0.0), 0.0);
}

TEST(DirectionMath, AnglesAreTheLibrarys) {
  for (int i = -20000; i <= 20000; ++i) {
    const double cosine = i / 20000.0;
    ASSERT_NEAR(angle_of(cosine), std::acos(cosine), 1e-15 * std::acos(cosine)) << cosine;
  }
  for (double rest = 1e-3; rest > 1e-16; rest /= 7)
    ASSERT_NEAR(angle_of(1.0 - rest), std::acos(1.0 - rest), 1e-15 * std::acos(1.0 - rest)) << rest;
}

std::vector<float> between(const std::vector<float>& a, const std::vector<float>& b, double t) {
  std::vector<float> out(a.size());
  direction_between([&](int32_t i) { return a[static_cast<std::size_t>(i)]; },
                    [&](int32_t i) { return b[static_cast<std::size_t>(i)]; }, static_cast<int32_t>(a.size()),
                    t, [&](int32_t i, float x) { out[static_cast<std::size_t>(i)] = x; });
  return out;
}

// Equation 3 in long double with the library's functions.
TEST(DirectionMath, IsSphericalInterpolation) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (int round = 0; round < 200; ++round) {
    std::vector<float> a(48), b(48);
    for (float& x : a) x = normal(random);
    for (std::size_t i = 0; i < b.size(); ++i) b[i] = (round % 3 - 1.0f) * a[i] + 0.3f * normal(random);
    const double t = round % 11 / 10.0;
    long double aa = 0, bb = 0, ab = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      aa += static_cast<long double>(a[i]) * a[i];
      bb += static_cast<long double>(b[i]) * b[i];
      ab += static_cast<long double>(a[i]) * b[i];
    }
    const long double angle = std::acos(ab / std::sqrt(aa * bb));
    const std::vector<float> found = between(a, b, t);
    for (std::size_t i = 0; i < a.size(); ++i) {
      const long double expected =
          (std::sin((1 - t) * angle) * a[i] / std::sqrt(aa) + std::sin(t * angle) * b[i] / std::sqrt(bb)) /
          std::sin(angle);
      ASSERT_NEAR(found[i], static_cast<double>(expected), 2e-7) << "round " << round;
    }
  }
}

TEST(DirectionMath, ZeroRowsLeaveTheOthersDirection) {
  EXPECT_EQ(between({0, 0}, {0, 4}, 0.6), (std::vector<float>{0, 1}));
  EXPECT_EQ(between({-3, 0}, {0, 0}, 0.6), (std::vector<float>{-1, 0}));
  EXPECT_EQ(between({0, 0}, {0, 0}, 0.6), (std::vector<float>{0, 0}));
}

TEST(DirectionMath, LengthsAndClosenessAreThoseOfRows) {
  const float direction[] = {0.5f, 0.0f};
  const std::vector<float> row = {3.0f, 4.0f};
  const AlongDirection along =
      along_direction([&](int32_t i) { return row[static_cast<std::size_t>(i)]; }, direction, 2);
  EXPECT_EQ(along.factor(), 10.0f);
  EXPECT_EQ(along.closeness(), 0.6);
  EXPECT_TRUE(along.can_be_stored());
  EXPECT_FALSE((AlongDirection{.length = 1e5, .unit = 1.0}).can_be_stored());
  EXPECT_EQ((AlongDirection{.length = 1.0}).closeness(), 1.0);
}

}  // namespace
}  // namespace kva
