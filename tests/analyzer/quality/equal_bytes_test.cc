// Curves read at equal bytes, and the front of loss against bytes.
#include "analyzer/quality/equal_bytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/random.h"

namespace kva {
namespace {

using ::testing::ElementsAre;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

using Points = std::vector<CurvePoint>;

TEST(LossAtBytes, InterpolatesBetweenNeighbours) {
  const Points points = {{400, 0.01}, {100, 1.0}, {200, 0.1}};
  EXPECT_EQ(loss_at_bytes(points, 100, LossScale::kLog), 1.0);
  EXPECT_EQ(loss_at_bytes(points, 200, LossScale::kLinear), 0.1);
  EXPECT_EQ(loss_at_bytes(points, 400, LossScale::kLog), 0.01);
  EXPECT_NEAR(*loss_at_bytes(points, 150, LossScale::kLinear), 0.55, 1e-15);
  EXPECT_NEAR(*loss_at_bytes(points, 150, LossScale::kLog), std::sqrt(0.1), 1e-15);
  EXPECT_NEAR(*loss_at_bytes(points, 250, LossScale::kLog), std::pow(10.0, -1.25), 1e-15);
}

TEST(LossAtBytes, DoesNotExtrapolate) {
  const Points points = {{100, 1.0}, {200, 0.1}};
  EXPECT_EQ(loss_at_bytes(points, 99, LossScale::kLog), std::nullopt);
  EXPECT_EQ(loss_at_bytes(points, 201, LossScale::kLog), std::nullopt);
  EXPECT_EQ(loss_at_bytes(Points(), 100, LossScale::kLog), std::nullopt);
  EXPECT_EQ(loss_at_bytes(Points{{7, 2.0}}, 7, LossScale::kLog), 2.0);
  EXPECT_EQ(loss_at_bytes(Points{{7, 2.0}}, 8, LossScale::kLog), std::nullopt);
}

TEST(LossAtBytes, TheBetterOfPointsAtTheSameBytesCounts) {
  const Points points = {{100, 3.0}, {100, 1.0}, {100, kNan}, {300, 0.5}, {300, 0.2}};
  EXPECT_EQ(loss_at_bytes(points, 100, LossScale::kLinear), 1.0);
  EXPECT_NEAR(*loss_at_bytes(points, 200, LossScale::kLinear), 0.6, 1e-15);
}

TEST(LossAtBytes, LossesWithoutALogarithmAreLinear) {
  EXPECT_EQ(loss_at_bytes(Points{{0, 1.0}, {100, 0.0}}, 50, LossScale::kLog), 0.5);
  EXPECT_EQ(loss_at_bytes(Points{{0, 1.0}, {100, -1.0}}, 50, LossScale::kLog), 0.0);
  EXPECT_TRUE(std::isnan(*loss_at_bytes(Points{{0, 1.0}, {100, kNan}}, 50, LossScale::kLog)));
}

TEST(LossDifferenceAtBytes, HasTheIntervalOfTheReplicates) {
  // Curve a falls from 1 to 0.01, so 0.1 in the middle; b stands at 0.2 there. Replicate r moves all of a by
  // a factor, which the difference shows.
  ReplicatedCurve a{{{100, 1.0}, {300, 0.01}}, {{}, {}}}, b{{{200, 0.2}}, {{}}};
  for (int r = 0; r <= 1000; ++r) {
    const double factor = 0.5 + r / 1000.0;
    a.replicates[0].push_back(factor);
    a.replicates[1].push_back(0.01 * factor);
    b.replicates[0].push_back(0.2);
  }
  const std::optional<Estimate> difference = loss_difference_at_bytes(a, b, 200, LossScale::kLog);
  ASSERT_TRUE(difference);
  EXPECT_NEAR(difference->value, -0.1, 1e-15);
  EXPECT_NEAR(difference->low, 0.1 * 0.525 - 0.2, 1e-12);
  EXPECT_NEAR(difference->high, 0.1 * 1.475 - 0.2, 1e-12);
  EXPECT_FALSE(loss_difference_at_bytes(a, b, 201, LossScale::kLog)) << "b ends at 200";
  a.replicates[0][5] = kNan;
  EXPECT_TRUE(std::isnan(loss_difference_at_bytes(a, b, 200, LossScale::kLog)->low));
}

TEST(ParetoFront, KeepsWhatNothingBeats) {
  EXPECT_THAT(pareto_front(Points{{300, 0.1}, {100, 1.0}, {200, 0.5}, {250, 0.6}, {400, 0.1}, {100, 2.0}}),
              ElementsAre(1, 2, 0));
  EXPECT_THAT(pareto_front(Points()), ElementsAre());
}

TEST(ParetoFront, TheFirstOfEqualPointsStays) {
  EXPECT_THAT(pareto_front(Points{{9, 9.0}, {5, 1.0}, {5, 1.0}, {5, 1.0}}), ElementsAre(1));
}

TEST(ParetoFront, BrokenLossesNeverJoin) {
  EXPECT_THAT(pareto_front(Points{{1, kNan}, {1, kInf}, {1, 5.0}, {2, kNan}, {3, 4.0}}), ElementsAre(2, 4));
  EXPECT_THAT(pareto_front(Points{{1, kNan}, {2, kInf}}), ElementsAre());
}

TEST(ParetoFront, AgreesWithTheDefinition) {
  SplitMix64 random(4);
  for (int round = 0; round < 50; ++round) {
    Points points;
    for (int i = 0; i < 40; ++i)
      points.push_back({static_cast<int64_t>(random.next() % 12), static_cast<double>(random.next() % 12)});
    std::vector<bool> expected(points.size(), true), found(points.size(), false);
    for (std::size_t i = 0; i < points.size(); ++i)
      for (std::size_t j = 0; j < points.size(); ++j) {
        const bool no_worse = points[j].bytes <= points[i].bytes && points[j].loss <= points[i].loss;
        const bool equal = points[j].bytes == points[i].bytes && points[j].loss == points[i].loss;
        if (no_worse && (!equal || j < i)) expected[i] = false;
      }
    for (const std::size_t i : pareto_front(points)) found[i] = true;
    EXPECT_EQ(found, expected);
  }
}

}  // namespace
}  // namespace kva
