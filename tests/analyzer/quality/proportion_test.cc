#include "analyzer/quality/proportion.h"

#include <gtest/gtest.h>

#include <cmath>

namespace kva {
namespace {

// The four cases of R. G. Newcombe, Two-sided confidence intervals for the single proportion, Statistics in
// Medicine 1998, table I, method 3.
TEST(WilsonEstimate, AgreesWithNewcombesTable) {
  const auto expect = [](int64_t hits, int64_t trials, double low, double high) {
    const Estimate found = wilson_estimate(hits, trials);
    EXPECT_DOUBLE_EQ(found.value, static_cast<double>(hits) / static_cast<double>(trials));
    EXPECT_NEAR(found.low, low, 5e-5) << hits;
    EXPECT_NEAR(found.high, high, 5e-5) << hits;
  };
  expect(81, 263, 0.2553, 0.3662);
  expect(15, 148, 0.0624, 0.1605);
  expect(0, 20, 0.0000, 0.1611);
  expect(1, 29, 0.0061, 0.1718);
}

TEST(WilsonEstimate, AllAndNoneAreNoPoints) {
  // Closed form at 0: the upper bound is z² / (n + z²).
  const double z2 = 3.841458820694124;
  EXPECT_EQ(wilson_estimate(0, 20).low, 0.0);
  EXPECT_NEAR(wilson_estimate(0, 20).high, z2 / (20 + z2), 1e-12);
  EXPECT_EQ(wilson_estimate(20, 20).high, 1.0);
  EXPECT_NEAR(wilson_estimate(20, 20).low, 20 / (20 + z2), 1e-12);
}

TEST(WilsonEstimate, NoTrialsSayNothing) {
  const Estimate none = wilson_estimate(0, 0);
  EXPECT_TRUE(std::isnan(none.value) && std::isnan(none.low) && std::isnan(none.high));
}

}  // namespace
}  // namespace kva
