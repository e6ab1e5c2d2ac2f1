#include "kernels/norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace kva {
namespace {

struct Case {
  std::vector<float> x, weight, bias, out;
  int64_t rows, cols;

  Case(int64_t rows_, int64_t cols_, float mean) : rows(rows_), cols(cols_) {
    std::mt19937 random(11);
    std::normal_distribution<float> normal(mean, 1.0f);
    for (auto [values, count] :
         {std::pair{&x, rows * cols}, {&weight, cols}, {&bias, cols}, {&out, rows * cols}}) {
      values->resize(static_cast<std::size_t>(count));
      for (float& value : *values) value = normal(random);
    }
  }
  double at(const std::vector<float>& values, int64_t r, int64_t c) const {
    return values[static_cast<std::size_t>(r * cols + c)];
  }
};

constexpr double kEps = 1e-5;

TEST(Norm, LayerNormAgreesWithDouble) {
  for (const int64_t cols : {1, 5, 16, 33, 768}) {
    Case c(3, cols, 2.0f);
    layer_norm(MatView<const float>(c.x.data(), 3, cols), c.weight.data(), c.bias.data(), kEps,
               MatView<float>(c.out.data(), 3, cols));
    for (int64_t r = 0; r < 3; ++r) {
      double mean = 0, variance = 0;
      for (int64_t i = 0; i < cols; ++i) mean += c.at(c.x, r, i) / static_cast<double>(cols);
      for (int64_t i = 0; i < cols; ++i)
        variance += std::pow(c.at(c.x, r, i) - mean, 2) / static_cast<double>(cols);
      for (int64_t i = 0; i < cols; ++i) {
        const double expected =
            (c.at(c.x, r, i) - mean) / std::sqrt(variance + kEps) * c.at(c.weight, 0, i) + c.at(c.bias, 0, i);
        ASSERT_NEAR(c.at(c.out, r, i), expected, 2e-5) << cols;
      }
    }
  }
}

TEST(Norm, RmsNormAgreesWithDoubleInPlace) {
  for (const int64_t cols : {1, 5, 16, 33, 576}) {
    Case c(4, cols, 0.5f);
    c.out = c.x;
    rms_norm(MatView<const float>(c.out.data(), 4, cols), c.weight.data(), kEps,
             MatView<float>(c.out.data(), 4, cols));
    for (int64_t r = 0; r < 4; ++r) {
      double square = 0;
      for (int64_t i = 0; i < cols; ++i) square += std::pow(c.at(c.x, r, i), 2) / static_cast<double>(cols);
      for (int64_t i = 0; i < cols; ++i)
        ASSERT_NEAR(c.at(c.out, r, i), c.at(c.x, r, i) / std::sqrt(square + kEps) * c.at(c.weight, 0, i),
                    1e-5);
    }
  }
}

}  // namespace
}  // namespace kva
