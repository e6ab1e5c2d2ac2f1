#include "kernels/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "kernels/convert.h"

namespace kva {
namespace {

struct Shape {
  int64_t rows, outputs, inputs;
};

// Weights of a type, and what they are exactly.
struct Weights {
  std::vector<unsigned char> bytes;
  std::vector<float> values;
  WeightView view;

  Weights(const Shape& s, DType type, uint32_t seed)
      : values(static_cast<std::size_t>(s.outputs * s.inputs)) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (float& value : values) value = normal(random);
    const int64_t count = s.outputs * s.inputs;
    bytes.resize(static_cast<std::size_t>(count * dtype_bytes(type)));
    from_f32(values.data(), type, bytes.data(), count);
    to_f32(bytes.data(), type, values.data(), count);
    view = {bytes.data(), type, s.outputs, s.inputs};
  }
};

std::vector<float> random_values(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// |computed - exact| <= share * sum of |x| |w|: what rounding allows, cancellation or not.
void expect_product(MatView<const float> x, const Weights& weights, const float* bias,
                    MatView<const float> out, double share) {
  const int64_t inputs = x.cols;
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t n = 0; n < out.cols; ++n) {
      double exact = bias ? bias[n] : 0.0;
      double magnitude = std::abs(exact);
      for (int64_t k = 0; k < inputs; ++k) {
        const double term = double{x.at(r, k)} * weights.values[static_cast<std::size_t>(n * inputs + k)];
        exact += term;
        magnitude += std::abs(term);
      }
      ASSERT_LE(std::abs(out.at(r, n) - exact), share * magnitude) << "row " << r << " output " << n;
    }
  }
}

constexpr double kF32Share = 2e-6;  // sqrt-like growth of 2^-24 over a thousand additions, with room
constexpr float kGuard = -12345.0f;

class MatmulTest : public ::testing::TestWithParam<DType> {};

TEST_P(MatmulTest, AgreesWithDoubleAtAwkwardSizes) {
  ThreadPool pool(2);
  for (const bool hardware : {true, false}) {
    Matmul matmul(pool, hardware);
    for (const Shape s :
         {Shape{1, 1, 1}, Shape{1, 7, 17}, Shape{3, 65, 33}, Shape{5, 130, 576}, Shape{16, 9, 15},
          Shape{17, 64, 64}, Shape{40, 67, 31}, Shape{259, 70, 100}, Shape{300, 129, 96}}) {
      SCOPED_TRACE(std::to_string(s.rows) + " x " + std::to_string(s.outputs) + " x " +
                   std::to_string(s.inputs));
      const Weights weights(s, GetParam(), 1);
      const auto input = random_values(s.rows * s.inputs, 2);
      const auto bias = random_values(s.outputs, 3);
      const int64_t stride = s.outputs + 3;
      std::vector<float> out(static_cast<std::size_t>(s.rows * stride), kGuard);
      const MatView<const float> x(input.data(), s.rows, s.inputs);
      const MatView<float> y(out.data(), s.rows, s.outputs, stride);
      const LinearOp op{weights.view, bias.data(), y};
      matmul.run(x, std::span(&op, 1));
      // Rounded activations err by up to 2^-9 of themselves.
      const bool rounded = s.rows > kFewRows && matmul.rounds_activations(GetParam());
      expect_product(x, weights, bias.data(), y, rounded ? 0x1p-9 + kF32Share : kF32Share);
      for (int64_t r = 0; r < s.rows; ++r)
        for (int64_t c = s.outputs; c < stride; ++c)
          ASSERT_EQ(out[static_cast<std::size_t>(r * stride + c)], kGuard);
    }
  }
}

TEST_P(MatmulTest, BitEqualAtAnyNumberOfThreads) {
  for (const int64_t rows : {1, 6, 300}) {
    const Shape s{rows, 200, 257};
    const Weights weights(s, GetParam(), 4);
    const auto input = random_values(s.rows * s.inputs, 5);
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 3}) {
      ThreadPool pool(threads);
      Matmul matmul(pool);
      auto& out = results.emplace_back(static_cast<std::size_t>(s.rows * s.outputs));
      const LinearOp op{weights.view, nullptr, MatView<float>(out.data(), s.rows, s.outputs)};
      matmul.run(MatView<const float>(input.data(), s.rows, s.inputs), std::span(&op, 1));
    }
    EXPECT_EQ(results[0], results[1]) << rows << " rows";
  }
}

TEST_P(MatmulTest, FewRowsDoNotDependOnTheirCompanions) {
  const Shape s{kFewRows, 37, 210};
  const Weights weights(s, GetParam(), 6);
  const auto input = random_values(s.rows * s.inputs, 7);
  ThreadPool pool(1);
  Matmul matmul(pool);
  std::vector<float> together(static_cast<std::size_t>(s.rows * s.outputs));
  const LinearOp all{weights.view, nullptr, MatView<float>(together.data(), s.rows, s.outputs)};
  const MatView<const float> x(input.data(), s.rows, s.inputs);
  matmul.run(x, std::span(&all, 1));
  for (int64_t r = 0; r < s.rows; ++r) {
    std::vector<float> alone(static_cast<std::size_t>(s.outputs));
    const LinearOp one{weights.view, nullptr, MatView<float>(alone.data(), 1, s.outputs)};
    matmul.run(x.row_range(r, 1), std::span(&one, 1));
    for (int64_t n = 0; n < s.outputs; ++n)
      ASSERT_EQ(alone[static_cast<std::size_t>(n)], all.out.at(r, n)) << "row " << r;
  }
}

TEST_P(MatmulTest, SeveralProductsOfOneInputAreTheirOwn) {
  const Shape small{20, 48, 64};
  const Shape large{20, 100, 64};
  const Weights a(small, GetParam(), 8);
  const Weights b(large, GetParam(), 9);
  const auto input = random_values(20 * 64, 10);
  const MatView<const float> x(input.data(), 20, 64);
  ThreadPool pool(2);
  Matmul matmul(pool);
  std::vector<float> together(20 * 148), alone(20 * 148);
  const auto ops = [&](std::vector<float>& out) {
    return std::vector<LinearOp>{{a.view, nullptr, MatView<float>(out.data(), 20, 48)},
                                 {b.view, nullptr, MatView<float>(out.data() + 20 * 48, 20, 100)}};
  };
  matmul.run(x, ops(together));
  for (const LinearOp& op : ops(alone)) matmul.run(x, std::span(&op, 1));
  EXPECT_EQ(together, alone);
}

INSTANTIATE_TEST_SUITE_P(Types, MatmulTest, ::testing::Values(DType::kF32, DType::kF16, DType::kBF16),
                         [](const auto& type) { return std::string(dtype_name(type.param)); });

}  // namespace
}  // namespace kva
