// Running totals of one metric over the pairs of one group, and the summary made of them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "analyzer/redundancy/redundancy.h"
#include "kernels/similarity.h"

namespace kva {

// Mergeable in any order: integers, minima and maxima only.
struct PairTotals {
  ValueTotals values;
  std::vector<int64_t> histogram;  // kHistogramBins
  int64_t distance = 0;            // kL2: sum of absolute distances, in units of kDistanceUnit

  PairTotals() : histogram(static_cast<std::size_t>(kHistogramBins)) {}
  void merge(const PairTotals& other);
};

// Raw pages have magnitudes up to 1, so distances fit: 2^-20 of the layer's largest magnitude.
inline constexpr double kDistanceUnit = 1.0 / (1 << 20);

// The rules of a metric. The thresholds must outlive the result.
ValueRules rules_of(Metric metric, std::span<const float> thresholds);

// Percentile `percent` of the values in the totals: linear within the bin of the histogram that holds it,
// clipped to the exact least and largest value. 0 where there is no value.
double percentile(const PairTotals& totals, float low, double percent);

// Without redundancy; `histogram` says whether the kReportBins histogram is wanted.
PairSummary summarize(const PairTotals& totals, Metric metric, std::size_t thresholds, bool histogram);

// [threshold]: share of the pages whose best partner is over it. `best` of a page without pairs is -2.
std::vector<double> redundancy_of(std::span<const float> best, std::span<const float> thresholds);

}  // namespace kva
