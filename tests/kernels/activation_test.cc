#include "kernels/activation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

namespace kva {
namespace {

double exact(Activation activation, double x) {
  switch (activation) {
    case Activation::kRelu: return x > 0 ? x : 0;
    case Activation::kGeluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::kGeluErf: return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
    case Activation::kSilu: return x / (1 + std::exp(-x));
  }
  return 0;
}

class ActivationTest : public ::testing::TestWithParam<Activation> {};

TEST_P(ActivationTest, AgreesWithDouble) {
  std::vector<float> inputs = {0.0f, -0.0f, 1e-30f, -1e-30f, 200.0f, -200.0f, 1e20f, -1e20f, 3e38f};
  for (float x = -12.0f; x <= 12.0f; x += 0.0137f) inputs.push_back(x);
  std::vector<float> values = inputs;
  const int64_t count = static_cast<int64_t>(values.size());
  activate(GetParam(), MatView<float>(values.data(), 1, count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double expected = exact(GetParam(), inputs[i]);
    if (GetParam() == Activation::kRelu) {
      ASSERT_EQ(values[i], expected);
    } else {
      // exp(-z²) with z² of n loses n ulps; results under 1e-7 are lost against their neighbours anyway.
      ASSERT_NEAR(values[i], expected, 2e-6 * std::abs(expected) + 1e-7) << "x = " << inputs[i];
    }
  }
}

TEST_P(ActivationTest, GatedMultipliesAndKeepsToItsColumns) {
  constexpr float kGuard = 77.0f;
  std::vector<float> x(3 * 24, kGuard), up(3 * 21, 2.5f), plain(3 * 24, kGuard);
  for (int r = 0; r < 3; ++r)
    for (int c = 0; c < 21; ++c) plain[r * 24 + c] = x[r * 24 + c] = 0.3f * static_cast<float>(c - 10 + r);
  activate_gated(GetParam(), MatView<float>(x.data(), 3, 21, 24), MatView<const float>(up.data(), 3, 21));
  activate(GetParam(), MatView<float>(plain.data(), 3, 21, 24));
  for (int i = 0; i < 3 * 24; ++i) ASSERT_EQ(x[i], i % 24 < 21 ? plain[i] * 2.5f : kGuard);
}

INSTANTIATE_TEST_SUITE_P(All, ActivationTest,
                         ::testing::Values(Activation::kRelu, Activation::kGeluTanh, Activation::kGeluErf,
                                           Activation::kSilu));

}  // namespace
}  // namespace kva
