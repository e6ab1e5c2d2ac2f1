#include "analyzer/redundancy/device_totals.h"

#include <algorithm>

namespace kva {
namespace {

enum Best { kInSet, kAcross, kEarlier, kLater, kBests };

template <typename T>
void fill(DeviceArray<T>& array, int64_t count, T value) {
  array.upload(std::vector<T>(static_cast<std::size_t>(count), value));
}

template <typename T>
std::vector<T> read_back(Backend& backend, const T* from, int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  if (count > 0) backend.download(values.data(), from, count * int64_t{sizeof(T)});
  return values;
}

int first_metric(PairKind kind) {
  switch (kind) {
    case PairKind::kProducts: return static_cast<int>(Metric::kCosine);
    case PairKind::kHamming: return static_cast<int>(Metric::kHamming);
    case PairKind::kJaccard: return static_cast<int>(Metric::kJaccard);
  }
  return 0;
}
static_assert(static_cast<int>(Metric::kCosine) == 0 && static_cast<int>(Metric::kCosineCentered) == 1 &&
              static_cast<int>(Metric::kL2) == 2);

ValueTotals values_of(const PairSums& sums) {
  ValueTotals values;
  values.count = static_cast<int64_t>(sums.count);
  values.sum = static_cast<int64_t>(sums.sum);
  values.squares_high = static_cast<int64_t>(sums.squares_high);
  values.squares_low = static_cast<int64_t>(sums.squares_low);
  for (int t = 0; t < kMaxThresholds; ++t) values.over[t] = static_cast<int64_t>(sums.over[t]);
  values.min = value_of_key(sums.least);
  values.max = value_of_key(sums.largest);
  return values;
}

}  // namespace

DeviceTotals::Scope::Scope(Backend& backend, int64_t groups_, int64_t pages, int bests_)
    : groups(groups_),
      bests(bests_),
      totals(backend, "totals of pairs"),
      histograms(backend, "histograms of pairs"),
      best(backend, "best partners") {
  fill(totals, kMetrics * groups, PairSums());
  fill(histograms, kMetrics * groups * kHistogramBins, uint64_t{0});
  fill(best, int64_t{bests} * kMetrics * pages, kNoPairKey);
}

DeviceTotals::DeviceTotals(const PageMatrix& pages, const Grouping& grouping, const PairPlan& plan,
                           Backend& backend)
    : matrix_(pages),
      grouping_(grouping),
      plan_(plan),
      backend_(backend),
      pages_(grouping.pages()),
      prompts_(backend, "totals of prompts"),
      partners_(backend, "partners of pages"),
      heat_bin_(backend, "cells of pages"),
      heat_(backend, "a heatmap") {
  const int64_t heads = plan.heads ? pages.shape().heads : 0;
  for (int64_t h = 0; h < heads; ++h) scopes_.emplace_back(backend, 1, pages_, 1);
  scopes_.emplace_back(backend, std::ssize(grouping.sets) + 1, pages_, kBests);
  fill(prompts_, kMetrics * std::ssize(grouping.prompts), PairSums());
  fill(partners_, pages_ * plan.partners, uint64_t{0});
  if (plan.heat_bins == 0) return;
  std::vector<int32_t> bins(static_cast<std::size_t>(pages_));
  for (int64_t p = 0; p < pages_; ++p)
    bins[static_cast<std::size_t>(p)] = static_cast<int32_t>(p * plan.heat_bins / pages_);
  heat_bin_.upload(bins);
  fill(heat_, int64_t{2} * plan.heat_bins * plan.heat_bins, uint64_t{0});
}

PairOutputs DeviceTotals::of_scope(int head, PairKind kind) const {
  const Scope& scope = head == kJoinedHeads ? scopes_.back() : scopes_[static_cast<std::size_t>(head)];
  const int first = first_metric(kind);
  PairOutputs out;
  out.totals = scope.totals.data() + first * scope.groups;
  out.histogram = scope.histograms.data() + first * scope.groups * kHistogramBins;
  out.groups = static_cast<int32_t>(scope.groups);
  out.pages = pages_;
  for (int across = 0; across < std::min(scope.bests, 2); ++across)
    out.row_best[across] = out.column_best[across] = best_of(scope, across, first);
  return out;
}

PairOutputs DeviceTotals::of_prompts(PairKind kind) const {
  const int first = first_metric(kind);
  const int64_t prompts = std::ssize(grouping_.prompts);
  PairOutputs out;
  out.totals = prompts_.data() + first * prompts;
  out.groups = static_cast<int32_t>(prompts);
  out.pages = pages_;
  out.row_best[0] = best_of(scopes_.back(), kLater, first);
  out.column_best[0] = best_of(scopes_.back(), kEarlier, first);
  return out;
}

void DeviceTotals::add_partners_and_heat(PairJob& job) const {
  if (plan_.partners > 0) {
    job.partners = partners_.data();
    job.partner_count = plan_.partners;
  }
  if (plan_.heat_bins == 0) return;
  job.heat_bin = heat_bin_.data();
  job.heat_bins = plan_.heat_bins;
  job.heat_sums = heat_.data();
  job.heat_counts = heat_.data() + int64_t{plan_.heat_bins} * plan_.heat_bins;
}

void DeviceTotals::read_scope(const Scope& scope, std::array<MetricTotals, kMetrics>& to) const {
  const auto sums = read_back(backend_, scope.totals.data(), kMetrics * scope.groups);
  for (int m = 0; m < kMetrics; ++m) {
    if (!plan_.metrics.has(static_cast<Metric>(m))) continue;
    MetricTotals& metric = to[static_cast<std::size_t>(m)];
    for (int64_t g = 0; g < scope.groups; ++g) {
      const int64_t place = m * scope.groups + g;
      PairTotals& group = metric.groups[static_cast<std::size_t>(g)];
      const PairSums& sum = sums[static_cast<std::size_t>(place)];
      group.values = values_of(sum);
      group.distance = static_cast<int64_t>(sum.distance);
      const auto bins = read_back(backend_, scope.histograms.data() + place * kHistogramBins, kHistogramBins);
      std::copy(bins.begin(), bins.end(), group.histogram.begin());
    }
    std::vector<float>* bests[] = {&metric.best_in_set, &metric.best_across, &metric.best_earlier,
                                   &metric.best_later};
    for (int b = 0; b < scope.bests; ++b) {
      const auto keys = read_back(backend_, best_of(scope, b, m), pages_);
      std::transform(keys.begin(), keys.end(), bests[b]->begin(), value_of_key);
    }
  }
}

void DeviceTotals::read_prompts(std::array<MetricTotals, kMetrics>& to) const {
  const std::size_t prompts = grouping_.prompts.size();
  const auto sums = read_back(backend_, prompts_.data(), kMetrics * static_cast<int64_t>(prompts));
  for (std::size_t m = 0; m < kMetrics; ++m)
    for (std::size_t p = 0; plan_.metrics.has(static_cast<Metric>(m)) && p < prompts; ++p)
      to[m].prompts[p] = values_of(sums[m * prompts + p]);
}

void DeviceTotals::read_partners_and_heat(AllPairs& to) const {
  const auto keys = read_back(backend_, partners_.data(), pages_ * plan_.partners);
  for (std::size_t k = 0; k < keys.size(); ++k)
    if (keys[k] != 0) to.partners[k] = {partner_page(keys[k]), partner_similarity(keys[k])};
  const auto cells = std::ssize(to.heat_sums);
  const auto heat = read_back(backend_, heat_.data(), 2 * cells);
  std::copy_n(heat.begin(), cells, to.heat_sums.begin());
  std::copy_n(heat.begin() + cells, cells, to.heat_counts.begin());
}

AllPairs DeviceTotals::read() const {
  AllPairs pairs = empty_pairs(matrix_, grouping_, plan_);
  for (std::size_t s = 0; s < scopes_.size(); ++s) read_scope(scopes_[s], pairs.scopes[s]);
  if (plan_.prompts) read_prompts(pairs.scopes.back());
  read_partners_and_heat(pairs);
  return pairs;
}

}  // namespace kva
