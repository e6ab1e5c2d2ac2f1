#include "analyzer/redundancy/pair_statistics.h"

#include <algorithm>

namespace kva {

void PairTotals::merge(const PairTotals& other) {
  values.merge(other.values);
  for (std::size_t b = 0; b < histogram.size(); ++b) histogram[b] += other.histogram[b];
  distance += other.distance;
}

ValueRules rules_of(Metric metric, std::span<const float> thresholds) {
  return {metric_low(metric), thresholds};
}

double percentile(const PairTotals& totals, float low, double percent) {
  if (totals.values.count == 0) return 0.0;
  const double target = percent / 100.0 * static_cast<double>(totals.values.count);
  const double width = (1.0 - double{low}) / kHistogramBins;
  double below = 0.0;
  for (int32_t b = 0; b < kHistogramBins; ++b) {
    const double inside = static_cast<double>(totals.histogram[static_cast<std::size_t>(b)]);
    if (inside > 0.0 && below + inside >= target) {
      const double value = double{low} + width * (b + (target - below) / inside);
      return std::clamp(value, double{totals.values.min}, double{totals.values.max});
    }
    below += inside;
  }
  return double{totals.values.max};
}

PairSummary summarize(const PairTotals& totals, Metric metric, std::size_t thresholds, bool histogram) {
  PairSummary summary;
  summary.pairs = totals.values.count;
  summary.mean = totals.values.mean();
  summary.std = totals.values.standard_deviation();
  for (std::size_t k = 0; k < kPercentiles.size(); ++k)
    summary.percentiles[k] = percentile(totals, metric_low(metric), kPercentiles[k]);
  const double pairs = static_cast<double>(std::max<int64_t>(1, summary.pairs));
  for (std::size_t t = 0; t < thresholds; ++t)
    summary.share_over.push_back(static_cast<double>(totals.values.over[t]) / pairs);
  if (histogram) {
    constexpr std::size_t kFine = kHistogramBins / kReportBins;
    static_assert(kFine * kReportBins == kHistogramBins);
    summary.histogram.resize(kReportBins);
    for (std::size_t b = 0; b < totals.histogram.size(); ++b)
      summary.histogram[b / kFine] += totals.histogram[b];
  }
  return summary;
}

std::vector<double> redundancy_of(std::span<const float> best, std::span<const float> thresholds) {
  std::vector<double> shares;
  for (const float threshold : thresholds) {
    const auto over = std::count_if(best.begin(), best.end(), [&](float b) { return b > threshold; });
    shares.push_back(static_cast<double>(over) / static_cast<double>(std::max<std::size_t>(1, best.size())));
  }
  return shares;
}

}  // namespace kva
