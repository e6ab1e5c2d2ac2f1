#include "analyzer/redundancy/all_pairs.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <memory>
#include <thread>

#include "kernels/check.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

constexpr float kNone = -2.0f;
constexpr int64_t kSampledTiles = 6;  // of a thread, for an estimate

bool better(const Partner& a, const Partner& b) {
  return a.similarity > b.similarity || (a.similarity == b.similarity && a.page < b.page);
}

void offer(Partner* list, int size, const Partner& candidate) {
  int at = size;
  while (at > 0 && (list[at - 1].page < 0 || better(candidate, list[at - 1]))) --at;
  if (at == size) return;
  std::move_backward(list + at, list + size - 1, list + size);
  list[at] = candidate;
}

void keep_larger(std::vector<float>& into, const std::vector<float>& other) {
  for (std::size_t k = 0; k < into.size(); ++k) into[k] = std::max(into[k], other[k]);
}

void merge(AllPairs& into, const AllPairs& other, int partners) {
  for (std::size_t s = 0; s < into.scopes.size(); ++s)
    for (std::size_t m = 0; m < kMetrics; ++m) {
      MetricTotals& a = into.scopes[s][m];
      const MetricTotals& b = other.scopes[s][m];
      for (std::size_t g = 0; g < a.groups.size(); ++g) a.groups[g].merge(b.groups[g]);
      for (std::size_t p = 0; p < a.prompts.size(); ++p) a.prompts[p].merge(b.prompts[p]);
      keep_larger(a.best_in_set, b.best_in_set);
      keep_larger(a.best_across, b.best_across);
      keep_larger(a.best_earlier, b.best_earlier);
      keep_larger(a.best_later, b.best_later);
    }
  for (std::size_t k = 0; k < other.partners.size(); ++k)
    if (other.partners[k].page >= 0)
      offer(
          into.partners.data() + k / static_cast<std::size_t>(partners) * static_cast<std::size_t>(partners),
          partners, other.partners[k]);
  for (std::size_t k = 0; k < into.heat_sums.size(); ++k) {
    into.heat_sums[k] += other.heat_sums[k];
    into.heat_counts[k] += other.heat_counts[k];
  }
}

// What one worker sees of the pairs.
class PairWorker {
 public:
  PairWorker(const PageMatrix& pages, const Grouping& grouping, const PairPlan& plan)
      : pages_(pages),
        grouping_(grouping),
        plan_(plan),
        tile_(pages, plan.metrics, plan.heads),
        totals_(empty_pairs(pages, grouping, plan)),
        worst_partner_(static_cast<std::size_t>(plan.partners > 0 ? grouping.pages() : 0), kNone) {
    KVA_CHECK(plan.metrics.has(Metric::kCosineCentered) || (plan.partners == 0 && plan.heat_bins == 0),
              "partners and a heatmap by cosine_centered");
  }

  // Returns how many pairs that was.
  int64_t take(const TileRange& range) {
    pairs_ = 0;
    tile_.begin(range);
    for (int h = 0; h < static_cast<int>(pages_.shape().heads); ++h) {
      tile_.add_head(h);
      if (plan_.heads) each_row(range, pages_.shape().pages, h);
    }
    tile_.join();
    each_row(range, pages_.shape().pages, kJoinedHeads);
    return pairs_;
  }

  AllPairs& totals() { return totals_; }

 private:
  void each_row(const TileRange& range, int64_t pages, int head) {
    for (int64_t r = 0; r < range.rows; ++r) {
      const int64_t page = range.row + r;
      const int64_t set_end = grouping_.sets[static_cast<std::size_t>(set_of(page))].last;
      const int64_t end = std::min(range.column + range.columns, plan_.across_sets ? pages : set_end);
      const int64_t first = std::max(range.column, page + 1);
      if (first >= end) continue;
      tile_.read_row(head, r, first - range.column, end - first);
      head == kJoinedHeads ? add_joined(page, first, end) : add_head(head, page, first, end);
    }
  }

  int set_of(int64_t page) const { return grouping_.set_of_page[static_cast<std::size_t>(page)]; }

  // Values [first - offset, last - offset) of the row belong to pages [first, last).
  void add(Metric metric, int64_t page, int64_t offset, int64_t first, int64_t last, PairTotals& totals,
           std::vector<float>& best) {
    if (first >= last) return;
    const float* values = tile_.values(metric) + (first - offset);
    const float largest = add_values(values, last - first, rules_of(metric, plan_.thresholds), totals.values,
                                     totals.histogram.data(), best.data() + first);
    float& own = best[static_cast<std::size_t>(page)];
    own = std::max(own, largest);
    if (metric == Metric::kL2)
      totals.distance +=
          std::llround(sum_values(tile_.distances() + (first - offset), last - first) / kDistanceUnit);
  }

  void add_head(int head, int64_t page, int64_t first, int64_t end) {
    for (int m = 0; m < kMetrics; ++m) {
      if (!plan_.metrics.has(static_cast<Metric>(m))) continue;
      MetricTotals& totals = totals_.scopes[static_cast<std::size_t>(head)][static_cast<std::size_t>(m)];
      add(static_cast<Metric>(m), page, first, first, end, totals.groups[0], totals.best_in_set);
    }
  }

  // Later pages come in this order: the same prompt, the rest of its set, other sets.
  void add_joined(int64_t page, int64_t first, int64_t end) {
    pairs_ += end - first;
    const int set = set_of(page);
    const int prompt = grouping_.prompt_of_page[static_cast<std::size_t>(page)];
    const int64_t set_end = std::clamp(grouping_.sets[static_cast<std::size_t>(set)].last, first, end);
    const int64_t prompt_end =
        std::clamp(grouping_.prompts[static_cast<std::size_t>(prompt)].last, first, end);
    for (int m = 0; m < kMetrics; ++m) {
      const Metric metric = static_cast<Metric>(m);
      if (!plan_.metrics.has(metric)) continue;
      MetricTotals& totals = totals_.scopes.back()[static_cast<std::size_t>(m)];
      add(metric, page, first, first, set_end, totals.groups[static_cast<std::size_t>(set)],
          totals.best_in_set);
      add(metric, page, first, set_end, end, totals.groups.back(), totals.best_across);
      if (!plan_.prompts) continue;
      const float later = add_values(
          tile_.values(metric), prompt_end - first, rules_of(metric, plan_.thresholds),
          totals.prompts[static_cast<std::size_t>(prompt)], nullptr, totals.best_earlier.data() + first);
      float& own = totals.best_later[static_cast<std::size_t>(page)];
      own = std::max(own, later);
    }
    if (plan_.partners > 0) offer_partners(page, first, end);
    if (plan_.heat_bins > 0) add_heat(page, first, end);
  }

  void offer_partners(int64_t page, int64_t first, int64_t end) {
    const float* values = tile_.values(Metric::kCosineCentered);
    const int k = plan_.partners;
    Partner* own = totals_.partners.data() + page * k;
    float* worst = worst_partner_.data();
    const auto next = [&](int64_t from) {
      return first + next_at_least(values, worst + first, worst[page], from - first, end - first);
    };
    for (int64_t other = next(first); other < end; other = next(other + 1)) {
      const float value = values[other - first];
      Partner* theirs = totals_.partners.data() + other * k;
      offer(own, k, {static_cast<int32_t>(other), value});
      offer(theirs, k, {static_cast<int32_t>(page), value});
      worst[page] = own[k - 1].similarity;
      worst[other] = theirs[k - 1].similarity;
    }
  }

  void add_heat(int64_t page, int64_t first, int64_t end) {
    const float* values = tile_.values(Metric::kCosineCentered);
    const int64_t bins = plan_.heat_bins;
    const int64_t pages = pages_.shape().pages;
    const int64_t row = page * bins / pages;
    int64_t other = first;
    while (other < end) {
      const int64_t column = other * bins / pages;
      const int64_t last = std::min(end, ((column + 1) * pages + bins - 1) / bins);
      const std::size_t cell = static_cast<std::size_t>(row * bins + column);
      totals_.heat_counts[cell] += last - other;
      for (; other < last; ++other)
        totals_.heat_sums[cell] += static_cast<int64_t>(values[other - first] * kFixedOne);
    }
  }

  const PageMatrix& pages_;
  const Grouping& grouping_;
  const PairPlan& plan_;
  PairTile tile_;
  AllPairs totals_;
  std::vector<float> worst_partner_;  // of each page's list
  int64_t pairs_ = 0;                 // of the tile
};

std::vector<TileRange> tiles_of(const Grouping& grouping, bool across_sets) {
  std::vector<TileRange> tiles;
  const int64_t pages = grouping.pages();
  for (int64_t row = 0; row < pages; row += kTileRows) {
    const int64_t rows = std::min(kTileRows, pages - row);
    const int last_set = grouping.set_of_page[static_cast<std::size_t>(row + rows - 1)];
    const int64_t end = across_sets ? pages : grouping.sets[static_cast<std::size_t>(last_set)].last;
    for (int64_t column = row; column < end; column += kTileColumns)
      tiles.push_back({row, rows, column, std::min(kTileColumns, end - column)});
  }
  return tiles;
}

// One worker of each thread that had work.
using PairWorkers = std::vector<std::unique_ptr<PairWorker>>;

}  // namespace

AllPairs empty_pairs(const PageMatrix& pages, const Grouping& grouping, const PairPlan& plan) {
  AllPairs totals;
  const std::size_t count = static_cast<std::size_t>(grouping.pages());
  const std::size_t heads = plan.heads ? static_cast<std::size_t>(pages.shape().heads) : 0;
  totals.scopes.resize(heads + 1);
  for (std::size_t s = 0; s <= heads; ++s)
    for (MetricTotals& metric : totals.scopes[s]) {
      metric.best_in_set.assign(count, kNone);
      metric.groups.resize(s < heads ? 1 : grouping.sets.size() + 1);
      if (s < heads) continue;
      metric.best_across.assign(count, kNone);
      metric.best_earlier.assign(count, kNone);
      metric.best_later.assign(count, kNone);
      metric.prompts.resize(grouping.prompts.size());
    }
  totals.partners.resize(count * static_cast<std::size_t>(plan.partners));
  totals.heat_bins = plan.heat_bins;
  totals.heat_sums.resize(static_cast<std::size_t>(plan.heat_bins) *
                          static_cast<std::size_t>(plan.heat_bins));
  totals.heat_counts.resize(totals.heat_sums.size());
  return totals;
}

AllPairs compare_all_pairs(const PageMatrix& pages, const Grouping& grouping, const PairPlan& plan,
                           ThreadPool& pool, const PairProgress& progress) {
  const std::vector<TileRange> tiles = tiles_of(grouping, plan.across_sets);
  PairWorkers workers(static_cast<std::size_t>(pool.threads()));
  std::atomic<int64_t> done = 0;
  const auto calling = std::this_thread::get_id();
  pool.parallel_for(static_cast<int64_t>(tiles.size()), [&](int64_t index, int worker) {
    throw_if_interrupted();
    auto& own = workers[static_cast<std::size_t>(worker)];
    if (!own) own = std::make_unique<PairWorker>(pages, grouping, plan);
    done += own->take(tiles[static_cast<std::size_t>(index)]);
    if (progress && std::this_thread::get_id() == calling) progress(done);
  });
  AllPairs result = empty_pairs(pages, grouping, plan);
  for (const auto& worker : workers)
    if (worker) merge(result, worker->totals(), plan.partners);
  if (progress) progress(done);
  return result;
}

double estimated_seconds(const PageMatrix& pages, const Grouping& grouping, const PairPlan& plan,
                         ThreadPool& pool) {
  using Clock = std::chrono::steady_clock;
  const std::vector<TileRange> tiles = tiles_of(grouping, plan.across_sets);
  const auto count = static_cast<int64_t>(tiles.size());
  const int64_t sampled = std::min<int64_t>(count, kSampledTiles * pool.threads());
  // Lists of partners are still empty here, and would take whatever comes.
  PairPlan sampled_plan = plan;
  sampled_plan.partners = 0;
  PairWorkers workers(static_cast<std::size_t>(pool.threads()));
  std::atomic<int64_t> pairs = 0;
  const auto take = [&](int64_t index, int worker) {
    auto& own = workers[static_cast<std::size_t>(worker)];
    if (!own) own = std::make_unique<PairWorker>(pages, grouping, sampled_plan);
    pairs += own->take(tiles[static_cast<std::size_t>((2 * index + 1) * count / (2 * sampled))]);
  };
  // The first time pays for what is made and touched once.
  pool.parallel_for(sampled, take);
  pairs = 0;
  const auto start = Clock::now();
  pool.parallel_for(sampled, take);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  if (pairs == 0) return 0.0;
  return seconds / static_cast<double>(pairs) * static_cast<double>(pair_count(grouping, plan.across_sets));
}

int64_t pair_count(const Grouping& grouping, bool across_sets) {
  const auto pairs = [](int64_t n) { return n * (n - 1) / 2; };
  if (across_sets) return pairs(grouping.pages());
  int64_t count = 0;
  for (const PageRange& set : grouping.sets) count += pairs(set.size());
  return count;
}

std::vector<int8_t> heatmap_of(const AllPairs& pairs) {
  const std::size_t bins = static_cast<std::size_t>(pairs.heat_bins);
  std::vector<int8_t> cells(bins * bins, kHeatmapNoPair);
  for (std::size_t r = 0; r < bins; ++r)
    for (std::size_t c = r; c < bins; ++c) {
      const int64_t count = pairs.heat_counts[r * bins + c];
      if (count == 0) continue;
      const double mean =
          static_cast<double>(pairs.heat_sums[r * bins + c]) / double{kFixedOne} / static_cast<double>(count);
      cells[r * bins + c] = cells[c * bins + r] = static_cast<int8_t>(std::lround(mean * 127.0));
    }
  return cells;
}

}  // namespace kva
