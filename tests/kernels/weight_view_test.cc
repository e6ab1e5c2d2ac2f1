#include "kernels/weight_view.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/matmul.h"
#include "tests/kernels/simd_targets.h"

namespace kva {
namespace {

std::vector<float> random_values(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

struct Int8Weights {
  Int8Weights(int64_t rows, int64_t cols, uint32_t seed)
      : Int8Weights(rows, cols, random_values(rows * cols, seed)) {}
  Int8Weights(int64_t rows, int64_t cols, std::vector<float> numbers)
      : original(std::move(numbers)),
        codes(original.size()),
        scales(static_cast<std::size_t>(rows * int8_groups(cols))),
        values(original.size()),
        view{codes.data(), DType::kF32, rows, cols, scales.data()} {
    quantize_int8(MatView<const float>(original.data(), rows, cols), codes.data(), scales.data());
    widen_weights(view, values.data());
  }
  float scale_of(int64_t row, int64_t col) const {
    return scales[static_cast<std::size_t>(row * int8_groups(view.cols) + col / kInt8Group)];
  }

  std::vector<float> original;
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<float> values;
  WeightView view;
};

TEST(Int8Weights, EachIsOffByAtMostHalfItsScaleAndTheLargestByNothingButRounding) {
  for (const int64_t cols : {1, 63, 64, 65, 200}) {
    const Int8Weights weights(5, cols, 1);
    for (int64_t r = 0; r < 5; ++r) {
      for (int64_t first = 0; first < cols; first += kInt8Group) {
        float largest = 0.0f;
        for (int64_t c = first; c < std::min(first + kInt8Group, cols); ++c) {
          const auto i = static_cast<std::size_t>(r * cols + c);
          largest = std::max(largest, std::abs(weights.original[i]));
          // A rounded quotient near a tie may fall to the other side.
          EXPECT_LE(std::abs(weights.values[i] - weights.original[i]),
                    0.5f * weights.scale_of(r, c) * (1.0f + 1e-4f));
          EXPECT_EQ(weights.values[i], static_cast<float>(weights.codes[i]) * weights.scale_of(r, c));
        }
        EXPECT_FLOAT_EQ(weights.scale_of(r, first) * 127.0f, largest);
      }
    }
  }
}

TEST(Int8Weights, ZerosAndNumbersNearTheEndsOfF32StayFinite) {
  const float tiny = std::numeric_limits<float>::denorm_min();
  const float huge = std::numeric_limits<float>::max();
  std::vector<float> numbers(3 * kInt8Group, 0.0f);
  numbers[static_cast<std::size_t>(kInt8Group)] = tiny;
  numbers[static_cast<std::size_t>(2 * kInt8Group)] = -huge;
  numbers[static_cast<std::size_t>(2 * kInt8Group + 1)] = huge;
  const Int8Weights weights(3, kInt8Group, numbers);
  for (const float value : weights.values) EXPECT_TRUE(std::isfinite(value));
  EXPECT_EQ(weights.scales[0], 0.0f);
  EXPECT_EQ(weights.values[0], 0.0f);
  EXPECT_LE(weights.values[static_cast<std::size_t>(kInt8Group)], tiny);
  EXPECT_EQ(weights.codes[static_cast<std::size_t>(2 * kInt8Group)], -127);
  EXPECT_EQ(weights.codes[static_cast<std::size_t>(2 * kInt8Group + 1)], 127);
}

TEST(Int8Weights, CountsCodesAndScalesAndGivesRowRanges) {
  const Int8Weights weights(7, 130, 2);
  EXPECT_EQ(weights.view.bytes(), 7 * (130 + 3 * 4));
  const WeightView part = weights.view.row_range(2, 3);
  std::vector<float> values(3 * 130);
  widen_weights(part, values.data());
  EXPECT_TRUE(std::equal(values.begin(), values.end(), weights.values.begin() + 2 * 130));
}

// Against f64 sums over the same codes and scales: |computed - exact| <= share * sum of |x| |w|. A group's
// codes are summed before its scale: f32 rounding of a sum of up to 64 terms, then of the groups.
TEST(Int8Weights, ProductsAgreeWithDoubleOnEverySimdTarget) {
  ThreadPool pool(2);
  for_each_simd_target([&] {
    Matmul matmul(pool);
    for (const auto& [rows, outputs, inputs] : std::vector<std::array<int64_t, 3>>{{1, 1, 1},
                                                                                   {1, 7, 17},
                                                                                   {3, 65, 63},
                                                                                   {4, 5, 64},
                                                                                   {5, 130, 576},
                                                                                   {16, 9, 129},
                                                                                   {17, 67, 200},
                                                                                   {300, 70, 96}}) {
      SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(outputs) + " x " + std::to_string(inputs));
      const Int8Weights weights(outputs, inputs, 3);
      const auto input = random_values(rows * inputs, 4);
      const auto bias = random_values(outputs, 5);
      std::vector<float> out(static_cast<std::size_t>(rows * outputs));
      const LinearOp op{weights.view, bias.data(), MatView<float>(out.data(), rows, outputs)};
      matmul.run(MatView<const float>(input.data(), rows, inputs), {&op, 1});
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t n = 0; n < outputs; ++n) {
          double exact = bias[static_cast<std::size_t>(n)], magnitude = std::abs(exact);
          for (int64_t k = 0; k < inputs; ++k) {
            const double term = double{input[static_cast<std::size_t>(r * inputs + k)]} *
                                weights.values[static_cast<std::size_t>(n * inputs + k)];
            exact += term;
            magnitude += std::abs(term);
          }
          ASSERT_LE(std::abs(out[static_cast<std::size_t>(r * outputs + n)] - exact), 2e-6 * magnitude);
        }
      }
    }
  });
}

TEST(Int8Weights, FewRowsDoNotDependOnTheirCompanionsNorOnThreads) {
  const Int8Weights weights(37, 210, 6);
  const auto input = random_values(kFewRows * 210, 7);
  const MatView<const float> x(input.data(), kFewRows, 210);
  std::vector<float> together(static_cast<std::size_t>(kFewRows * 37));
  ThreadPool pool(3);
  Matmul matmul(pool);
  const LinearOp all{weights.view, nullptr, MatView<float>(together.data(), kFewRows, 37)};
  matmul.run(x, {&all, 1});
  ThreadPool alone(1);
  Matmul matmul_alone(alone);
  for (int64_t r = 0; r < kFewRows; ++r) {
    std::vector<float> row(37);
    const LinearOp one{weights.view, nullptr, MatView<float>(row.data(), 1, 37)};
    matmul_alone.run(x.row_range(r, 1), {&one, 1});
    for (int64_t n = 0; n < 37; ++n)
      ASSERT_EQ(row[static_cast<std::size_t>(n)], all.out.at(r, n)) << "row " << r;
  }
}

}  // namespace
}  // namespace kva
