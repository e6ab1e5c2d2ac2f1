#include "reports/trial_statistics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "analyzer/quality/bootstrap.h"

namespace kva {
namespace {

using SampleKey = std::tuple<std::string, std::string, std::string, double, double>;

SampleKey sample_of(const TrialRow& row) {
  // NaN has no order.
  const double context = std::isnan(row.context_length) ? -1.0 : row.context_length;
  return {row.prompt_set, row.sample, row.device, context, row.batch_size};
}

// A figure of each sample, the mean of its repeats; samples without it are not there.
std::map<SampleKey, double> by_sample(const TrialGroup& group, double (*of)(const TrialRow&)) {
  std::map<SampleKey, std::pair<double, int64_t>> sums;
  for (const TrialRow* row : group.trials) {
    const double value = of(*row);
    if (std::isnan(value)) continue;
    auto& [sum, count] = sums[sample_of(*row)];
    sum += value;
    ++count;
  }
  std::map<SampleKey, double> means;
  for (const auto& [key, sum] : sums) means[key] = sum.first / static_cast<double>(sum.second);
  return means;
}

SampleEstimate estimate(const std::vector<double>& values) {
  SampleEstimate result;
  result.samples = static_cast<int64_t>(values.size());
  result.value.value = kUnknown;
  if (values.empty()) return result;
  const BlockBootstrap bootstrap(std::vector<int64_t>{result.samples}, {.block_tokens = 1});
  result.value = bootstrap.mean(values);
  return result;
}

}  // namespace

double held_bytes(const TrialRow& row) { return row.ledger.held(); }

double token_bytes(const TrialRow& row) {
  const double seen =
      row.steps.tokens.empty() ? row.prompt_tokens + row.generated_tokens : row.steps.tokens.back();
  return seen > 0 ? held_bytes(row) / seen : kUnknown;
}

double log_perplexity(const TrialRow& row) {
  return std::log(row.quality.perplexity / row.quality.perplexity_base);
}

std::vector<TrialGroup> group_trials(const std::vector<TrialRow>& rows, const std::string& prompt_set) {
  std::vector<std::string> models;
  for (const TrialRow& row : rows)
    if (std::find(models.begin(), models.end(), row.model) == models.end()) models.push_back(row.model);
  std::vector<TrialGroup> groups;
  for (const std::string& model : models) {
    const auto first = static_cast<std::ptrdiff_t>(groups.size());
    std::map<std::string, std::size_t> places;
    for (const TrialRow& row : rows) {
      if (row.model != model || (!prompt_set.empty() && row.prompt_set != prompt_set)) continue;
      const auto [place, is_new] = places.try_emplace(row.strategy, groups.size());
      if (is_new) groups.push_back({model, row.strategy, row.is_baseline(), {}, 0});
      TrialGroup& group = groups[place->second];
      if (row.ok)
        group.trials.push_back(&row);
      else
        ++group.failed;
    }
    std::stable_partition(groups.begin() + first, groups.end(),
                          [](const TrialGroup& group) { return group.baseline; });
  }
  return groups;
}

TrialSpread spread_of(const TrialGroup& group, double (*of)(const TrialRow&)) {
  std::vector<double> values;
  for (const TrialRow* row : group.trials)
    if (const double value = of(*row); !std::isnan(value)) values.push_back(value);
  TrialSpread spread;
  spread.trials = static_cast<int64_t>(values.size());
  if (values.empty()) return spread;
  std::sort(values.begin(), values.end());
  spread.mean = mean_of(values);
  spread.low = values.front();
  spread.q1 = quantile(values, 0.25);
  spread.median = quantile(values, 0.5);
  spread.q3 = quantile(values, 0.75);
  spread.high = values.back();
  return spread;
}

SampleEstimate sample_mean(const TrialGroup& group, double (*of)(const TrialRow&)) {
  std::vector<double> values;
  for (const auto& [key, value] : by_sample(group, of)) values.push_back(value);
  return estimate(values);
}

SampleEstimate sample_change(const TrialGroup& group, const TrialGroup& baseline,
                             double (*of)(const TrialRow&)) {
  const auto base = by_sample(baseline, of);
  std::vector<double> changes;
  for (const auto& [key, value] : by_sample(group, of))
    if (const auto found = base.find(key); found != base.end() && found->second > 0)
      changes.push_back(value / found->second - 1);
  return estimate(changes);
}

std::vector<const TrialRow*> worst_trials(const std::vector<TrialRow>& rows, const std::string& model,
                                          std::size_t most) {
  std::vector<const TrialRow*> worst;
  for (const TrialRow& row : rows)
    if (row.ok && row.model == model && !row.is_baseline() && std::isfinite(row.quality.kl_mean))
      worst.push_back(&row);
  std::stable_sort(worst.begin(), worst.end(), [](const TrialRow* a, const TrialRow* b) {
    return a->quality.kl_mean > b->quality.kl_mean;
  });
  worst.resize(std::min(worst.size(), most));
  return worst;
}

const TrialGroup* baseline_of(const std::vector<TrialGroup>& groups, const std::string& model) {
  for (const TrialGroup& group : groups)
    if (group.model == model && group.baseline && !group.trials.empty()) return &group;
  return nullptr;
}

MeanSeries mean_series(const TrialGroup& group, SeriesOf x, SeriesOf y, std::size_t points) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  std::vector<const TrialRow*> rows;
  for (const TrialRow* row : group.trials) {
    if (x(*row).empty() || x(*row).size() != y(*row).size()) continue;
    rows.push_back(row);
    low = std::min(low, x(*row).front());
    high = std::max(high, x(*row).back());
  }
  MeanSeries result;
  if (rows.empty()) return result;
  const std::size_t count = high > low ? points : 1;
  for (std::size_t i = 0; i < count; ++i) {
    const double share = count == 1 ? 1.0 : static_cast<double>(i) / static_cast<double>(count - 1);
    const double at = i + 1 == count ? high : low + share * (high - low);
    double sum = 0;
    int64_t reached = 0;
    for (const TrialRow* row : rows) {
      const std::vector<double>& xs = x(*row);
      const std::vector<double>& ys = y(*row);
      if (at < xs.front() || at > xs.back()) continue;
      const auto above = static_cast<std::size_t>(std::lower_bound(xs.begin(), xs.end(), at) - xs.begin());
      double value = ys[above];
      if (above > 0 && xs[above] > xs[above - 1])
        value =
            ys[above - 1] + (ys[above] - ys[above - 1]) * (at - xs[above - 1]) / (xs[above] - xs[above - 1]);
      if (std::isnan(value)) continue;
      sum += value;
      ++reached;
    }
    if (2 * reached < static_cast<int64_t>(rows.size())) continue;
    result.x.push_back(at);
    result.y.push_back(sum / static_cast<double>(reached));
    result.trials.push_back(reached);
  }
  return result;
}

}  // namespace kva
