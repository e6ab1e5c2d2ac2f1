#include <algorithm>
#include <chrono>
#include <memory>
#include <span>

#include "analyzer/redundancy/all_pairs.h"
#include "analyzer/redundancy/device_pages.h"
#include "analyzer/redundancy/device_totals.h"
#include "kernels/check.h"
#include "kernels/device_ops.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

std::vector<DeviceTile> tiles_of(const Grouping& grouping, bool across_sets, int64_t size) {
  std::vector<DeviceTile> tiles;
  const int64_t pages = grouping.pages();
  for (int64_t row = 0; row < pages; row += size) {
    const int64_t rows = std::min(size, pages - row);
    const int last_set = grouping.set_of_page[static_cast<std::size_t>(row + rows - 1)];
    const int64_t end = across_sets ? pages : grouping.sets[static_cast<std::size_t>(last_set)].last;
    for (int64_t column = row; column < end; column += size)
      tiles.push_back({row, rows, column, std::min(size, end - column)});
  }
  return tiles;
}

// The pairs of a tile in pieces of one group each, of which every block takes one.
class TileItems {
 public:
  explicit TileItems(const DeviceTile& tile) : tile_(tile) {}

  void add(const PageRange& rows, const PageRange& columns, std::size_t group, bool across) {
    const PageRange r = within(rows, tile_.row, tile_.rows);
    const PageRange c = within(columns, tile_.column, tile_.columns);
    for (int64_t row = r.first; row < r.last; row += kPairRows)
      for (int64_t column = c.first; column < c.last; column += kPairColumns) {
        const int64_t last = std::min(c.last, column + kPairColumns);
        if (last - 1 <= row) continue;  // on this side of the diagonal only
        items_.push_back({static_cast<int32_t>(row),
                          static_cast<int32_t>(std::min<int64_t>(kPairRows, r.last - row)),
                          static_cast<int32_t>(column), static_cast<int32_t>(last - column),
                          static_cast<int32_t>(group), across ? 1 : 0});
      }
  }
  std::span<const PairItem> items() const { return items_; }

 private:
  static PageRange within(const PageRange& range, int64_t first, int64_t count) {
    return {std::max(range.first, first), std::min(range.last, first + count)};
  }

  const DeviceTile tile_;
  std::vector<PairItem> items_;
};

// By set, as the groups of joined heads are, or all in one group.
TileItems items_by_set(const Grouping& grouping, const PairPlan& plan, const DeviceTile& tile,
                       bool one_group) {
  TileItems items(tile);
  const int64_t pages = grouping.pages();
  if (one_group && plan.across_sets) {
    items.add({0, pages}, {0, pages}, 0, false);
    return items;
  }
  for (std::size_t s = 0; s < grouping.sets.size(); ++s) {
    const PageRange& set = grouping.sets[s];
    items.add(set, set, one_group ? 0 : s, false);
    if (plan.across_sets) items.add(set, {set.last, pages}, grouping.sets.size(), true);
  }
  return items;
}

TileItems items_by_prompt(const Grouping& grouping, const DeviceTile& tile) {
  TileItems items(tile);
  for (std::size_t p = 0; p < grouping.prompts.size(); ++p)
    items.add(grouping.prompts[p], grouping.prompts[p], p, false);
  return items;
}

int64_t pairs_of(std::span<const PairItem> items) {
  int64_t pairs = 0;
  for (const PairItem& item : items)
    for (int64_t row = item.row; row < item.row + item.rows; ++row)
      pairs += std::max<int64_t>(0, item.column + item.columns - std::max<int64_t>(item.column, row + 1));
  return pairs;
}

// Compares tile after tile.
class DeviceComparison {
 public:
  DeviceComparison(const PageMatrix& pages, const Grouping& grouping, const PairPlan& plan, Backend& backend,
                   int64_t tile_pages)
      : matrix_(pages),
        grouping_(grouping),
        plan_(plan),
        backend_(backend),
        products_(plan.metrics.has(Metric::kCosine) || plan.metrics.has(Metric::kCosineCentered) ||
                  plan.metrics.has(Metric::kL2)),
        hamming_(plan.metrics.has(Metric::kHamming)),
        jaccard_(plan.metrics.has(Metric::kJaccard)),
        pages_(pages, backend, hamming_ || jaccard_),
        totals_(pages, grouping, plan, backend),
        head_items_(backend, "pairs of a head"),
        items_(backend, "pairs of pages"),
        prompt_items_(backend, "pairs of prompts"),
        dots_(backend, "products of pages"),
        joined_dots_(backend, "products of pages"),
        counts_(backend, "bits of pages"),
        joined_counts_(backend, "bits of pages"),
        near_(backend, "pages that nearly equal each other") {
    KVA_CHECK(plan.metrics.has(Metric::kCosineCentered) || (plan.partners == 0 && plan.heat_bins == 0),
              "partners and a heatmap by cosine_centered");
    const int64_t side = std::min(tile_pages, grouping.pages());
    const int64_t pairs = side * side;
    if (products_) near_.reserve(pairs + 1);
    if (products_) joined_dots_.reserve(pairs);
    if (hamming_) joined_counts_.reserve(pairs);
    if (products_ && plan.heads) dots_.reserve(pairs);
    if (jaccard_ || (hamming_ && plan.heads)) counts_.reserve(pairs);
  }

  // Returns how many pairs that is; it is done when the device is.
  int64_t take(const DeviceTile& tile) {
    const TileItems by_set = items_by_set(grouping_, plan_, tile, false);
    items_.upload(by_set.items());
    item_counts_ = {0, std::ssize(by_set.items()), 0};
    if (plan_.heads) {
      const TileItems of_head = items_by_set(grouping_, plan_, tile, true);
      head_items_.upload(of_head.items());
      item_counts_.head = std::ssize(of_head.items());
    }
    if (plan_.prompts) {
      const TileItems by_prompt = items_by_prompt(grouping_, tile);
      prompt_items_.upload(by_prompt.items());
      item_counts_.prompt = std::ssize(by_prompt.items());
    }
    if (products_) take_products(tile);
    if (hamming_) take_hamming(tile);
    if (jaccard_) take_jaccard(tile);
    return pairs_of(by_set.items());
  }

  AllPairs totals() { return totals_.read(); }

 private:
  int heads() const { return static_cast<int>(matrix_.shape().heads); }

  void take_products(const DeviceTile& tile) {
    for (int h = 0; h < heads(); ++h) {
      pages_.multiply(h, tile, (plan_.heads ? dots_ : joined_dots_).data(), !plan_.heads && h > 0);
      if (!plan_.heads) continue;
      PairJob job = job_for(PairKind::kProducts, h, tile, dots_.data());
      job.joined = joined_dots_.data();
      job.joined_starts = h == 0;
      run(job, head_items_, item_counts_.head);
    }
    take_joined(PairKind::kProducts, tile, joined_dots_.data());
  }

  void take_hamming(const DeviceTile& tile) {
    if (!plan_.heads) pages_.count_differing(kJoinedHeads, tile, joined_counts_.data());
    for (int h = 0; plan_.heads && h < heads(); ++h) {
      pages_.count_differing(h, tile, counts_.data());
      PairJob job = job_for(PairKind::kHamming, h, tile, counts_.data());
      job.joined = joined_counts_.data();
      job.joined_starts = h == 0;
      run(job, head_items_, item_counts_.head);
    }
    take_joined(PairKind::kHamming, tile, joined_counts_.data());
  }

  void take_jaccard(const DeviceTile& tile) {
    for (int h = 0; plan_.heads && h < heads(); ++h) {
      pages_.count_common(h, tile, counts_.data());
      run(job_for(PairKind::kJaccard, h, tile, counts_.data()), head_items_, item_counts_.head);
    }
    pages_.count_common(kJoinedHeads, tile, counts_.data());
    take_joined(PairKind::kJaccard, tile, counts_.data());
  }

  void take_joined(PairKind kind, const DeviceTile& tile, const void* values) {
    PairJob job = job_for(kind, kJoinedHeads, tile, values);
    if (kind == PairKind::kProducts) totals_.add_partners_and_heat(job);
    run(job, items_, item_counts_.joined);
    if (!plan_.prompts) return;
    PairJob within = job_for(kind, kJoinedHeads, tile, values);
    within.out = totals_.of_prompts(kind);
    run(within, prompt_items_, item_counts_.prompt);
  }

  PairJob job_for(PairKind kind, int head, const DeviceTile& tile, const void* values) const {
    PairJob job;
    job.kind = kind;
    job.tile = values;
    job.tile_row = static_cast<int32_t>(tile.row);
    job.tile_column = static_cast<int32_t>(tile.column);
    job.tile_stride = tile.columns;
    std::copy(plan_.thresholds.begin(), plan_.thresholds.end(), job.thresholds);
    job.threshold_count = static_cast<int32_t>(plan_.thresholds.size());
    job.out = totals_.of_scope(head, kind);
    job.size = static_cast<uint32_t>(kind == PairKind::kHamming ? matrix_.scope_values(head)
                                                                : matrix_.top_size(head));
    if (kind != PairKind::kProducts) return job;
    job.norms = pages_.norms(head);
    job.exact = pages_.exact(head);
    job.near = near_.data() + 1;
    job.near_count = near_.data();
    return job;
  }

  void run(PairJob job, const DeviceArray<PairItem>& items, int64_t count) {
    for (int64_t first = 0; first < count; first += kMostPairItems) {
      job.items = items.data() + first;
      job.count = static_cast<int32_t>(std::min<int64_t>(kMostPairItems, count - first));
      backend_.device()->compare_pairs(job);
    }
  }

  struct ItemCounts {
    int64_t head = 0;
    int64_t joined = 0;
    int64_t prompt = 0;
  };

  const PageMatrix& matrix_;
  const Grouping& grouping_;
  const PairPlan& plan_;
  Backend& backend_;
  const bool products_;
  const bool hamming_;
  const bool jaccard_;
  DevicePages pages_;
  DeviceTotals totals_;
  DeviceArray<PairItem> head_items_, items_, prompt_items_;
  ItemCounts item_counts_;
  DeviceArray<float> dots_, joined_dots_;
  DeviceArray<uint32_t> counts_, joined_counts_, near_;
};

}  // namespace

AllPairs compare_all_pairs_on_device(const PageMatrix& pages, const Grouping& grouping, const PairPlan& plan,
                                     Backend& backend, const PairProgress& progress, int64_t tile_pages) {
  DeviceComparison comparison(pages, grouping, plan, backend, tile_pages);
  int64_t done = 0;
  for (const DeviceTile& tile : tiles_of(grouping, plan.across_sets, tile_pages)) {
    throw_if_interrupted();
    done += comparison.take(tile);
    backend.device()->wait();
    if (progress) progress(done);
  }
  return comparison.totals();
}

double estimated_seconds_on_device(const PageMatrix& pages, const Grouping& grouping, const PairPlan& plan,
                                   Backend& backend) {
  using Clock = std::chrono::steady_clock;
  const std::vector<DeviceTile> tiles = tiles_of(grouping, plan.across_sets, kDeviceTilePages);
  // Lists of partners are still empty here, and would take whatever comes.
  PairPlan sampled = plan;
  sampled.partners = 0;
  DeviceComparison comparison(pages, grouping, sampled, backend, kDeviceTilePages);
  const DeviceTile& tile = tiles[tiles.size() / 2];
  // The first time pays for what is made and touched once.
  comparison.take(tile);
  backend.device()->wait();
  const auto start = Clock::now();
  const int64_t pairs = comparison.take(tile);
  backend.device()->wait();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  if (pairs == 0) return 0.0;
  return seconds / static_cast<double>(pairs) * static_cast<double>(pair_count(grouping, plan.across_sets));
}

}  // namespace kva
