// What tests of subspaces share: rows of a known spectrum, angles, and NumPy's word for a small matrix.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "compressors/subspace.h"
#include "kernels/views.h"

namespace kva {

inline MatView<const float> view(const std::vector<float>& values, int64_t cols) {
  return {values.data(), static_cast<int64_t>(values.size()) / cols, cols};
}

// Rows with singular values scale * fall^i, apart from rounding to f32: orthonormal columns made by
// Gram-Schmidt.
inline std::vector<float> rows_with_spectrum(int64_t tokens, int64_t width, double fall, unsigned seed) {
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

inline double dot(const float* a, const float* b, int64_t width) {
  double sum = 0.0;
  for (int64_t i = 0; i < width; ++i) sum += double{a[i]} * b[i];
  return sum;
}

// At least the sine of the largest principal angle: the Frobenius norm of what b's vectors have outside of a.
inline double sine_between(const Subspace& a, const Subspace& b, int64_t width) {
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
inline void expect_orthonormal(const Subspace& s, int64_t width) {
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
inline const std::vector<float> kTall{2, -1, 0, 1, 3, 1, 0, 4, -2, 5, 1, 1, -1, 2, 3};
inline const std::vector<double> kTallValues{5.9672662985821985, 5.199687226890128, 3.7887973902441354};
inline const std::vector<double> kTallVectors{
    0.7066483704279399,   0.6869537608426663,   0.1695364593108325,   -0.6896776984843084, 0.7222552553462165,
    -0.05188466380501294, -0.15809096364094974, -0.08026130193865944, 0.9841571879665296};

// What compressors/subspace.h says of the sine of the largest angle, of singular values that fall by `fall`.
inline double randomized_bound(int64_t tokens, int64_t rank, double fall) {
  const auto columns = static_cast<double>(rank + kSubspaceOversampling);
  const double constant = (std::sqrt(static_cast<double>(tokens)) + std::sqrt(columns)) * std::exp(1.0) *
                          std::sqrt(columns) / 3.0;
  return constant *
         std::pow(fall,
                  static_cast<double>((kSubspaceOversampling - 1) * (2 * kSubspacePowerIterations + 1))) /
         (1.0 - fall * fall);
}

}  // namespace kva
