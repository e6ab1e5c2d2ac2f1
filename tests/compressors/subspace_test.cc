#include "compressors/subspace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace kva {
namespace {

MatView<const float> view(const std::vector<float>& values, int64_t cols) {
  return {values.data(), static_cast<int64_t>(values.size()) / cols, cols};
}

// Rows with singular values scale * fall^i, apart from rounding to f32: orthonormal columns made by
// Gram-Schmidt.
std::vector<float> rows_with_spectrum(int64_t tokens, int64_t width, double fall, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  const auto orthonormal = [&](int64_t count, int64_t length) {
    std::vector<std::vector<double>> vectors;
    while (static_cast<int64_t>(vectors.size()) < count) {
      std::vector<double> v(static_cast<std::size_t>(length));
      for (double& x : v) x = normal(random);
      for (int pass = 0; pass < 2; ++pass) {
        for (const auto& u : vectors) {
          double dot = 0.0;
          for (std::size_t i = 0; i < v.size(); ++i) dot += u[i] * v[i];
          for (std::size_t i = 0; i < v.size(); ++i) v[i] -= dot * u[i];
        }
      }
      double length_of = 0.0;
      for (const double x : v) length_of += x * x;
      for (double& x : v) x /= std::sqrt(length_of);
      vectors.push_back(v);
    }
    return vectors;
  };
  const auto left = orthonormal(width, tokens), right = orthonormal(width, width);
  std::vector<double> sums(static_cast<std::size_t>(tokens * width), 0.0);
  for (std::size_t i = 0; i < left.size(); ++i)
    for (std::size_t t = 0; t < left[i].size(); ++t)
      for (std::size_t c = 0; c < right[i].size(); ++c)
        sums[t * static_cast<std::size_t>(width) + c] +=
            100.0 * std::pow(fall, static_cast<double>(i)) * left[i][t] * right[i][c];
  return {sums.begin(), sums.end()};
}

double dot(const float* a, const float* b, int64_t width) {
  double sum = 0.0;
  for (int64_t i = 0; i < width; ++i) sum += double{a[i]} * b[i];
  return sum;
}

// At least the sine of the largest principal angle: the Frobenius norm of what b's vectors have outside of a.
double sine_between(const Subspace& a, const Subspace& b, int64_t width) {
  double outside = 0.0;
  for (int64_t r = 0; r < b.rank; ++r) {
    std::vector<double> rest(b.basis.begin() + r * width, b.basis.begin() + (r + 1) * width);
    for (int64_t s = 0; s < a.rank; ++s) {
      const float* of_a = a.basis.data() + s * width;
      const double along = dot(of_a, b.basis.data() + r * width, width);
      for (int64_t i = 0; i < width; ++i) rest[static_cast<std::size_t>(i)] -= along * of_a[i];
    }
    for (const double x : rest) outside += x * x;
  }
  return std::sqrt(outside);
}

// And that the largest component of each vector is positive.
void expect_orthonormal(const Subspace& s, int64_t width) {
  for (int64_t a = 0; a < s.rank; ++a) {
    const auto [least, most] =
        std::minmax_element(s.basis.begin() + a * width, s.basis.begin() + (a + 1) * width);
    EXPECT_GE(*most, -*least - 1e-6f);
    for (int64_t b = 0; b <= a; ++b)
      EXPECT_NEAR(dot(s.basis.data() + a * width, s.basis.data() + b * width, width), a == b ? 1.0 : 0.0,
                  1e-6);
  }
}

// numpy.linalg.svd of the matrix, NumPy 2.4.6.
const std::vector<float> kTall{2, -1, 0, 1, 3, 1, 0, 4, -2, 5, 1, 1, -1, 2, 3};
const std::vector<double> kTallValues{5.9672662985821985, 5.199687226890128, 3.7887973902441354};
const std::vector<double> kTallVectors{0.7066483704279399,   0.6869537608426663,   0.1695364593108325,
                                       -0.6896776984843084,  0.7222552553462165,   -0.05188466380501294,
                                       -0.15809096364094974, -0.08026130193865944, 0.9841571879665296};

TEST(Subspace, AgreesWithNumPyOnATallMatrix) {
  for (const bool randomized : {false, true}) {
    const Subspace s = randomized ? randomized_subspace(view(kTall, 3), {.rank = 3}, 1)
                                  : exact_subspace(view(kTall, 3), {.rank = 3});
    ASSERT_EQ(s.rank, 3);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(s.singular_values[i], kTallValues[i], 1e-12);
    for (std::size_t i = 0; i < 9; ++i) EXPECT_NEAR(s.basis[i], kTallVectors[i], 1e-7) << i;
    EXPECT_NEAR(s.energy, 1.0, 1e-12);
  }
}

TEST(Subspace, AgreesWithNumPyOnAWideMatrix) {
  const std::vector<float> wide(kTall.begin(), kTall.begin() + 6);
  const Subspace s = exact_subspace(view(wide, 3), {.rank = 3});
  ASSERT_EQ(s.rank, 2) << "two rows span two dimensions";
  const std::vector<double> vectors{0.19955793815254272, 0.9342846701282437,  0.29544675405843285,
                                    0.9703907000800176,  -0.2302999806541117, 0.07282724839597063};
  EXPECT_NEAR(s.singular_values[0], 3.3409995001748185, 1e-12);
  EXPECT_NEAR(s.singular_values[1], 2.199482289047043, 1e-12);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(s.basis[i], vectors[i], 1e-7) << i;
}

TEST(Subspace, EnergyTakesAsFewDimensionsAsHoldIt) {
  // Shares of the squared singular values: 0.46245, 0.81357, 1.
  for (const auto& [energy, rank] :
       {std::pair{0.01, 1}, {0.462, 1}, {0.463, 2}, {0.813, 2}, {0.814, 3}, {1.0, 3}}) {
    EXPECT_EQ(exact_subspace(view(kTall, 3), {.energy = energy}).rank, rank) << energy;
    EXPECT_EQ(randomized_subspace(view(kTall, 3), {.energy = energy}, 1).rank, rank) << energy;
  }
  EXPECT_NEAR(exact_subspace(view(kTall, 3), {.rank = 2}).energy, 0.8135716147490809, 1e-12);
}

TEST(Subspace, RandomizedFindsTheExactOneWithinTheStatedBound) {
  constexpr int64_t kTokens = 256, kWidth = 96;
  for (const double fall : {0.6, 0.8, 0.85}) {
    const auto rows = rows_with_spectrum(kTokens, kWidth, fall, 2);
    for (const int64_t rank : {4, 16, 40}) {
      const Subspace exact = exact_subspace(view(rows, kWidth), {.rank = rank});
      const Subspace randomized = randomized_subspace(view(rows, kWidth), {.rank = rank}, 3);
      expect_orthonormal(exact, kWidth);
      expect_orthonormal(randomized, kWidth);
      // What f32 leaves of a falling spectrum has a floor: below it there is no subspace to find.
      if (100.0 * std::pow(fall, static_cast<double>(rank)) < 1e-3) continue;
      const auto columns = static_cast<double>(rank + kSubspaceOversampling);
      const double constant =
          (std::sqrt(double{kTokens}) + std::sqrt(columns)) * std::exp(1.0) * std::sqrt(columns) / 3.0;
      const double bound = constant *
                           std::pow(fall, static_cast<double>((kSubspaceOversampling - 1) *
                                                              (2 * kSubspacePowerIterations + 1))) /
                           (1.0 - fall * fall);
      EXPECT_LT(sine_between(exact, randomized, kWidth), bound + 1e-5) << fall << " rank " << rank;
    }
  }
}

TEST(Subspace, RandomizedKeepsAsMuchWhereNothingStandsOut) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  std::vector<float> rows(256 * 64);
  for (float& value : rows) value = normal(random);
  const Subspace exact = exact_subspace(view(rows, 64), {.rank = 32});
  const Subspace randomized = randomized_subspace(view(rows, 64), {.rank = 32}, 5);
  EXPECT_LE(randomized.energy, exact.energy + 1e-12);
  EXPECT_GT(randomized.energy, 0.99 * exact.energy);
  const auto by_energy = randomized_subspace(view(rows, 64), {.energy = 0.8}, 5);
  EXPECT_GE(by_energy.energy, 0.8);
  EXPECT_NEAR(static_cast<double>(by_energy.rank),
              static_cast<double>(exact_subspace(view(rows, 64), {.energy = 0.8}).rank), 1);
}

TEST(Subspace, SameRowsAndSeedGiveTheSameBits) {
  const auto rows = rows_with_spectrum(60, 24, 0.9, 6);
  EXPECT_EQ(exact_subspace(view(rows, 24), {.rank = 7}).basis,
            exact_subspace(view(rows, 24), {.rank = 7}).basis);
  const auto drawn = [&](uint64_t seed) {
    return randomized_subspace(view(rows, 24), {.rank = 7}, seed).basis;
  };
  EXPECT_EQ(drawn(1), drawn(1));
  EXPECT_NE(drawn(1), drawn(2));
}

TEST(Subspace, DegenerateRowsStillGiveAnOrthonormalBasis) {
  for (const float value : {0.0f, 3.0f, 1e-40f, 3e38f}) {
    for (const int64_t tokens : {1, 5, 40}) {
      const std::vector<float> rows(static_cast<std::size_t>(tokens * 12), value);
      for (const bool randomized : {false, true}) {
        const Subspace s = randomized ? randomized_subspace(view(rows, 12), {.rank = 6}, 1)
                                      : exact_subspace(view(rows, 12), {.rank = 6});
        EXPECT_EQ(s.rank, std::min<int64_t>(6, tokens));
        expect_orthonormal(s, 12);
        EXPECT_EQ(exact_subspace(view(rows, 12), {.energy = 1.0}).rank, 1) << value;
      }
    }
  }
}

}  // namespace
}  // namespace kva
