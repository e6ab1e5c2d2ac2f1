// Do prompt sets differ? A statistic of each prompt (over the pairs of its own pages), averaged over the
// layers, compared between sets by a percentile bootstrap over prompts (Efron and Tibshirani, An Introduction
// to the Bootstrap, 1993, chapter 13). A prompt is drawn with all its layers, metrics and statistics, so
// layers are paired.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "analyzer/estimate.h"
#include "analyzer/redundancy/all_pairs.h"
#include "analyzer/redundancy/grouping.h"

namespace kva {

// Mean of a - mean of b, both at least two values long. The same seed draws the same prompts whatever the
// values.
Estimate bootstrap_difference(std::span<const double> a, std::span<const double> b, int resamples,
                              uint64_t seed);

class SetDifferences {
 public:
  explicit SetDifferences(const Grouping& grouping);

  void add(const AllPairs& layer);

  // Each pair of sets with at least two prompts of two pages each; metrics and statistics in order.
  std::vector<SetDifferenceRow> rows(SideBasis side, int resamples, uint64_t seed) const;

 private:
  static constexpr int kStatistics = 2;  // mean, redundancy
  // [prompt]: sum over the layers.
  using Values = std::vector<double>;
  std::vector<double> of_set(int set, const Values& values) const;

  const Grouping& grouping_;
  int64_t layers_ = 0;
  std::array<std::array<Values, kStatistics>, kMetrics> sums_;
};

}  // namespace kva
