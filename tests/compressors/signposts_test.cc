#include "compressors/codecs/signposts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/compressors/random_sample.h"

namespace kva {
namespace {

// Max 1960, table I, and Lloyd 1982.
TEST(LloydMax, AreThePublishedLevelsOfTheStandardNormal) {
  const auto expect_upper_half = [](int bits, const std::vector<double>& published, double within) {
    const std::vector<double> levels = lloyd_max_levels(bits);
    ASSERT_EQ(levels.size(), 2 * published.size());
    for (std::size_t i = 0; i < published.size(); ++i) {
      EXPECT_NEAR(levels[published.size() + i], published[i], within);
      EXPECT_EQ(levels[published.size() - 1 - i], -levels[published.size() + i]);
    }
  };
  expect_upper_half(1, {std::sqrt(2.0 / std::numbers::pi)}, 1e-12);
  expect_upper_half(2, {0.4528, 1.510}, 5e-4);
  expect_upper_half(3, {0.2451, 0.7560, 1.344, 2.152}, 5e-4);
  expect_upper_half(4, {0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733}, 5e-4);
}

// What makes them optimal: each level is the mean of the numbers nearest to it, here by numeric integration.
TEST(LloydMax, EachLevelIsTheMeanOfItsCell) {
  const auto density = [](double x) { return std::exp(-0.5 * x * x); };
  for (const int bits : {2, 5, 8}) {
    const std::vector<double> levels = lloyd_max_levels(bits);
    EXPECT_TRUE(std::is_sorted(levels.begin(), levels.end()));
    for (std::size_t i = 0; i < levels.size(); ++i) {
      const double low = i == 0 ? -12.0 : 0.5 * (levels[i - 1] + levels[i]);
      const double high = i + 1 == levels.size() ? 12.0 : 0.5 * (levels[i] + levels[i + 1]);
      const int steps = 20000;
      double mass = 0.0, moment = 0.0;
      for (int s = 0; s < steps; ++s) {
        const double x = low + (high - low) * (s + 0.5) / steps;
        mass += density(x);
        moment += density(x) * x;
      }
      EXPECT_NEAR(levels[i], moment / mass, 1e-6) << "level " << i << " of " << levels.size();
    }
  }
}

struct Weighted {
  double number;
  double weight;
};

// The least cost of `count` levels for ascending numbers, by trying every cut.
double least_cost(const std::vector<Weighted>& numbers, std::size_t from, int count) {
  if (from == numbers.size()) return 0.0;
  if (count == 0) return std::numeric_limits<double>::infinity();
  double best = std::numeric_limits<double>::infinity();
  double weight = 0.0, sum = 0.0, squares = 0.0;
  for (std::size_t to = from; to < numbers.size(); ++to) {
    weight += numbers[to].weight;
    sum += numbers[to].weight * numbers[to].number;
    squares += numbers[to].weight * numbers[to].number * numbers[to].number;
    best = std::min(best, squares - sum * sum / weight + least_cost(numbers, to + 1, count - 1));
  }
  return best;
}

double cost_of(const std::vector<Weighted>& numbers, const std::vector<float>& levels) {
  double cost = 0.0;
  for (const Weighted& of : numbers) {
    double nearest = std::numeric_limits<double>::infinity();
    for (const float level : levels) nearest = std::min(nearest, std::pow(of.number - level, 2));
    cost += of.weight * nearest;
  }
  return cost;
}

TEST(Histogram, LevelsCostNoMoreThanAnyOthers) {
  SplitMix64 random(8);
  for (int round = 0; round < 40; ++round) {
    std::vector<Weighted> numbers(12);
    for (Weighted& of : numbers)
      of = {random.uniform() * 2.0 - 1.0, round % 2 ? 1.0 : 10.0 * random.uniform()};
    std::sort(numbers.begin(), numbers.end(), [](auto& a, auto& b) { return a.number < b.number; });
    NumberHistogram histogram;
    for (const Weighted& of : numbers) histogram.add(of.number, of.weight);
    for (const int count : {2, 4, 8}) {
      const std::vector<float> levels = histogram.levels(count);
      ASSERT_EQ(levels.size(), static_cast<std::size_t>(count));
      EXPECT_TRUE(std::is_sorted(levels.begin(), levels.end()));
      // Two numbers in one bin, 2 / 4096 wide, cannot be told apart.
      EXPECT_NEAR(cost_of(numbers, levels), least_cost(numbers, 0, count), 1e-4);
    }
  }
}

TEST(Histogram, ApproachesLloydMaxOnNormalNumbers) {
  NumberHistogram histogram;
  for (const float number : normal_numbers(400000, 3))
    histogram.add(std::clamp(number / 8.0f, -1.0f, 1.0f), 1.0);
  for (const int bits : {2, 3, 4}) {
    const std::vector<float> levels = histogram.levels(1 << bits);
    const std::vector<double> optimum = lloyd_max_levels(bits);
    // The outermost cells hold the fewest numbers: 4,000 of 400,000 at 4 bits, their mean known to 0.01.
    for (std::size_t i = 0; i < levels.size(); ++i) EXPECT_NEAR(8.0 * levels[i], optimum[i], 0.05);
  }
}

TEST(Histogram, FewNumbersAndNoneLeaveNoLevelOut) {
  NumberHistogram histogram;
  EXPECT_EQ(histogram.levels(4), (std::vector<float>{-0.75f, -0.25f, 0.25f, 0.75f}));
  histogram.add(0.25, 0.0);
  EXPECT_EQ(histogram.levels(2), (std::vector<float>{-0.5f, 0.5f}));
  histogram.add(0.25, 2.0);
  histogram.add(-1.0, 1.0);
  EXPECT_EQ(histogram.levels(4), (std::vector<float>{-1.0f, 0.25f, 0.25f, 0.25f}));
  // What weighs next to nothing beside the rest must not bring a level of its own that is not a number.
  histogram.add(0.5, 1e-300);
  for (const float level : histogram.levels(4)) EXPECT_TRUE(level >= -1.0f && level <= 1.0f);
}

}  // namespace
}  // namespace kva
