#include "analyzer/redundancy/set_differences.h"

#include <algorithm>
#include <cmath>

#include "analyzer/redundancy/growth.h"
#include "analyzer/redundancy/seeded.h"
#include "kernels/check.h"

namespace kva {
namespace {

double resampled_mean(std::span<const double> values, SeededRandom& random) {
  double sum = 0.0;
  for (std::size_t k = 0; k < values.size(); ++k)
    sum += values[static_cast<std::size_t>(random.below(static_cast<int64_t>(values.size())))];
  return sum / static_cast<double>(values.size());
}

const char* verdict_of(const Estimate& interval) {
  constexpr double kRounding = 1e-9;  // of the means; far below any interval of interest
  if (interval.low > kRounding) return "higher";
  return interval.high < -kRounding ? "lower" : "no difference found";
}

}  // namespace

Estimate bootstrap_difference(std::span<const double> a, std::span<const double> b, int resamples,
                              uint64_t seed) {
  KVA_CHECK(a.size() >= 2 && b.size() >= 2 && resamples >= 1, "two samples and some draws");
  SeededRandom random(seed, 0);
  std::vector<double> differences;
  for (int r = 0; r < resamples; ++r) {
    const double of_a = resampled_mean(a, random);
    differences.push_back(of_a - resampled_mean(b, random));
  }
  std::sort(differences.begin(), differences.end());
  return {mean_of(a) - mean_of(b), quantile(differences, kIntervalLow), quantile(differences, kIntervalHigh)};
}

SetDifferences::SetDifferences(const Grouping& grouping) : grouping_(grouping) {
  for (auto& metric : sums_)
    for (Values& values : metric) values.resize(grouping.prompts.size());
}

void SetDifferences::add(const AllPairs& layer) {
  const float threshold = static_cast<float>(kReferenceThreshold);
  ++layers_;
  for (std::size_t m = 0; m < kMetrics; ++m) {
    const MetricTotals& totals = layer.joined(static_cast<Metric>(m));
    for (std::size_t p = 0; p < grouping_.prompts.size(); ++p) {
      const PageRange& range = grouping_.prompts[p];
      if (range.size() < 2) continue;
      int64_t redundant = 0;
      for (std::size_t page = static_cast<std::size_t>(range.first);
           page < static_cast<std::size_t>(range.last); ++page)
        redundant += std::max(totals.best_earlier[page], totals.best_later[page]) > threshold;
      sums_[m][0][p] += totals.prompts[p].mean();
      sums_[m][1][p] += static_cast<double>(redundant) / static_cast<double>(range.size());
    }
  }
}

std::vector<double> SetDifferences::of_set(int set, const Values& values) const {
  std::vector<double> result;
  for (std::size_t p = 0; p < values.size(); ++p)
    if (grouping_.set_of_prompt[p] == set && grouping_.prompts[p].size() >= 2)
      result.push_back(values[p] / static_cast<double>(layers_));
  return result;
}

std::vector<SetDifferenceRow> SetDifferences::rows(SideBasis side, int resamples, uint64_t seed) const {
  static constexpr std::array<const char*, kStatistics> kNames = {"mean", "redundancy@0.9"};
  std::vector<SetDifferenceRow> rows;
  const int sets = static_cast<int>(grouping_.sets.size());
  for (int a = 0; a < sets; ++a)
    for (int b = a + 1; b < sets; ++b)
      for (std::size_t m = 0; m < kMetrics; ++m)
        for (std::size_t s = 0; s < kStatistics; ++s) {
          const std::vector<double> of_a = of_set(a, sums_[m][s]);
          const std::vector<double> of_b = of_set(b, sums_[m][s]);
          if (of_a.size() < 2 || of_b.size() < 2) continue;
          const Estimate interval = bootstrap_difference(of_a, of_b, resamples, seed);
          SetDifferenceRow row;
          row.a = grouping_.set_names[static_cast<std::size_t>(a)];
          row.b = grouping_.set_names[static_cast<std::size_t>(b)];
          row.side = side;
          row.metric = static_cast<Metric>(m);
          row.statistic = kNames[s];
          row.difference = interval.value;
          row.low = interval.low;
          row.high = interval.high;
          row.verdict = verdict_of(interval);
          row.prompts_a = static_cast<int64_t>(of_a.size());
          row.prompts_b = static_cast<int64_t>(of_b.size());
          rows.push_back(std::move(row));
        }
  return rows;
}

}  // namespace kva
