// Every pair of pages of one layer and side, streamed tile by tile: totals of all metrics by group, best
// partners, and a pooled heatmap. Memory is O(pages), never O(pages²).
//
// All totals are integers, maxima or ordered lists with a total order, so the result does not depend on the
// threads.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "analyzer/redundancy/device_pages.h"
#include "analyzer/redundancy/grouping.h"
#include "analyzer/redundancy/page_matrix.h"
#include "analyzer/redundancy/pair_statistics.h"
#include "analyzer/redundancy/pair_tile.h"

namespace kva {

struct PairPlan {
  std::span<const float> thresholds;
  bool heads = false;                    // also each KV head
  bool across_sets = true;               // false: only pairs within a set
  int partners = 0;                      // best partners a page to keep
  int heat_bins = 0;                     // 0: no heatmap
  MetricSet metrics = MetricSet::all();  // partners and the heatmap want kCosineCentered
  bool prompts = true;                   // also what is within each prompt
};

// Of one metric in one scope; empty totals where it was not asked for.
struct MetricTotals {
  // Joined heads: pairs within set s at [s], pairs across sets last. One head: all pairs at [0].
  std::vector<PairTotals> groups;
  // Best similarity of each page, -2 where there is no pair. One head: best_in_set means any partner.
  std::vector<float> best_in_set;
  // Joined heads only.
  std::vector<float> best_across;    // in another set
  std::vector<float> best_earlier;   // earlier in the same prompt
  std::vector<float> best_later;     // later in the same prompt
  std::vector<ValueTotals> prompts;  // pairs within each prompt
};

struct AllPairs {
  std::vector<std::array<MetricTotals, kMetrics>> scopes;  // each head, where asked for, and joined last
  std::vector<Partner> partners;                           // [pages, plan.partners], by cosine_centered
  int heat_bins = 0;
  std::vector<int64_t> heat_sums;    // [bins, bins], row <= column, cosine_centered in units of 1 / kFixedOne
  std::vector<int64_t> heat_counts;  // pairs of each cell

  const MetricTotals& joined(Metric metric) const { return scopes.back()[static_cast<std::size_t>(metric)]; }
  const MetricTotals& of_head(int head, Metric metric) const {
    return scopes[static_cast<std::size_t>(head)][static_cast<std::size_t>(metric)];
  }
};

// Called from the calling thread after some of the work, with how many pairs have been compared so far. May
// throw to stop it.
using PairProgress = std::function<void(int64_t pairs)>;

AllPairs compare_all_pairs(const PageMatrix& pages, const Grouping& grouping, const PairPlan& plan,
                           ThreadPool& pool, const PairProgress& progress = {});

// The same on a device, of which backend.device() is not null, in tiles of up to tile_pages pages a side:
// what the CPU finds up to the rounding of f32 products (integers and orders are the same where products
// are), but that sums of distances are of rounded ones. Throws InputError where it has not the memory.
AllPairs compare_all_pairs_on_device(const PageMatrix& pages, const Grouping& grouping, const PairPlan& plan,
                                     Backend& backend, const PairProgress& progress = {},
                                     int64_t tile_pages = kDeviceTilePages);

// Totals of no pairs at all.
AllPairs empty_pairs(const PageMatrix& pages, const Grouping& grouping, const PairPlan& plan);

// Number of pairs that compare_all_pairs() looks at.
int64_t pair_count(const Grouping& grouping, bool across_sets);

// Seconds that compare_all_pairs() takes, from a few tiles of it that are compared now on all threads; for
// few pages too little to be told. Milliseconds, however many the pages are.
double estimated_seconds(const PageMatrix& pages, const Grouping& grouping, const PairPlan& plan,
                         ThreadPool& pool);
// The same of compare_all_pairs_on_device().
double estimated_seconds_on_device(const PageMatrix& pages, const Grouping& grouping, const PairPlan& plan,
                                   Backend& backend);

// The mean of each cell, both triangles, as value * 127.
std::vector<int8_t> heatmap_of(const AllPairs& pairs);

}  // namespace kva
