#include "kernels/hadamard.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>
#include <vector>

#include "tests/kernels/simd_targets.h"

namespace kva {
namespace {

// By hand: [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]] / 2.
TEST(Hadamard, FourNumbersByHand) {
  for_each_simd_target([] {
    float row[] = {1, 2, 3, 5};
    hadamard_rows(MatView<float>(row, 1, 4));
    EXPECT_EQ(row[0], 5.5f);
    EXPECT_EQ(row[1], -1.5f);
    EXPECT_EQ(row[2], -2.5f);
    EXPECT_EQ(row[3], 0.5f);
  });
}

// Entry (i, j) of Sylvester's matrix is the parity of the bits that i and j share.
TEST(Hadamard, EqualsTheMatrixInDoubleAndStaysInItsRows) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  constexpr int64_t kRows = 3;
  for (int64_t width = 1; width <= 1024; width *= 2) {
    const int64_t stride = width + 1;
    std::vector<float> values(static_cast<std::size_t>(kRows * stride));
    for (float& value : values) value = normal(random);
    for_each_simd_target([&] {
      std::vector<float> turned = values;
      hadamard_rows(MatView<float>(turned.data(), kRows, width, stride));
      for (int64_t r = 0; r < kRows; ++r) {
        const float* row = values.data() + r * stride;
        double magnitude = 0.0;
        for (int64_t j = 0; j < width; ++j) magnitude += std::abs(row[j]);
        // log2(width) roundings of sums and two of the factor.
        const double bound = (std::log2(static_cast<double>(width)) + 2) * 0x1p-24 * magnitude /
                             std::sqrt(static_cast<double>(width));
        for (int64_t i = 0; i < width; ++i) {
          double sum = 0.0;
          for (int64_t j = 0; j < width; ++j)
            sum += std::popcount(static_cast<uint64_t>(i & j)) % 2 ? -double{row[j]} : double{row[j]};
          ASSERT_NEAR(turned[static_cast<std::size_t>(r * stride + i)],
                      sum / std::sqrt(static_cast<double>(width)), bound)
              << width;
        }
        EXPECT_EQ(turned[static_cast<std::size_t>(r * stride + width)], row[width]);
      }
    });
  }
}

}  // namespace
}  // namespace kva
