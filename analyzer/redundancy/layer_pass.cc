#include "analyzer/redundancy/layer_pass.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "analyzer/redundancy/page_matrix.h"
#include "analyzer/redundancy/pair_list.h"
#include "analyzer/redundancy/shared_parts.h"

namespace kva {
namespace {

constexpr std::array<Metric, 2> kCoverMetrics = {Metric::kCosine, Metric::kL2};

std::vector<Metric> all_metrics() {
  std::vector<Metric> metrics;
  metrics.reserve(kMetrics);
  for (int m = 0; m < kMetrics; ++m) metrics.push_back(static_cast<Metric>(m));
  return metrics;
}

// The totals of a group as they are asked for; `best` is each page's best partner within it.
struct GroupTotals {
  PairTotals totals;
  std::vector<float> best;
};

GroupTotals everything(const MetricTotals& metric) {
  GroupTotals group{PairTotals(), metric.best_in_set};
  for (const PairTotals& part : metric.groups) group.totals.merge(part);
  for (std::size_t p = 0; p < metric.best_across.size(); ++p)
    group.best[p] = std::max(group.best[p], metric.best_across[p]);
  return group;
}

GroupTotals one_set(const MetricTotals& metric, std::size_t set, const PageRange& range) {
  return {metric.groups[set],
          {metric.best_in_set.begin() + range.first, metric.best_in_set.begin() + range.last}};
}

PairSummary summarize_group(const GroupTotals& group, Metric metric, std::span<const float> thresholds,
                            bool histogram) {
  PairSummary summary = summarize(group.totals, metric, thresholds.size(), histogram);
  summary.redundancy = redundancy_of(group.best, thresholds);
  return summary;
}

// A page has one random partner, so the share of pages over a threshold is the share of pairs.
PairSummary with_redundancy(PairSummary summary) {
  summary.redundancy = summary.share_over;
  return summary;
}

double mean_distance(const PairTotals& totals, double unit) {
  if (totals.values.count == 0) return 0.0;
  return static_cast<double>(totals.distance) * kDistanceUnit * unit /
         static_cast<double>(totals.values.count);
}

std::vector<int> scopes_of(const AnalysisContext& context) {
  std::vector<int> scopes = {kJoinedHeads};
  if (context.options.per_head)
    for (int h = 0; h < context.pages.kv_heads; ++h) scopes.push_back(h);
  return scopes;
}

}  // namespace

struct SidePass::Prepared {
  PageMatrix real;
  PageMatrix everywhere;  // the tokens shuffled
  PageMatrix within;      // shuffled within the sets
};

SidePass::SidePass(const AnalysisContext& context, SideBasis side)
    : context_(context),
      side_(side),
      growth_(context.grouping, context.pages.page_tokens),
      differences_(context.grouping) {}

SidePass::~SidePass() = default;

bool SidePass::is_stored() const {
  return side_ == SideBasis::kValue || side_ == stored_keys(context_.pages);
}

void SidePass::take_layer(int layer, RedundancyResult& result) {
  started_ = Clock::now();
  ThreadPool& pool = context_.pool;
  RawPages raw = load_pages(context_.pages, layer, side_, pool);
  std::vector<float> means = channel_means(raw, pool);
  if (is_stored())
    measure_norms(raw, side_ != SideBasis::kValue, context_.options.outlier_factor, pool,
                  result.norms[static_cast<std::size_t>(layer)]);
  const double share = context_.options.jaccard_share;
  RawPages everywhere = reorder_tokens(raw, context_.orders.everywhere, pool);
  RawPages within = reorder_tokens(raw, context_.orders.within_sets, pool);
  centres_.push_back({means, raw.unit});
  auto now = std::make_unique<Prepared>(Prepared{PageMatrix(std::move(raw), means, share, pool),
                                                 PageMatrix(std::move(everywhere), means, share, pool),
                                                 PageMatrix(std::move(within), means, share, pool)});
  if (result.products == DType::kBF16)
    for (PageMatrix* matrix : {&now->real, &now->everywhere, &now->within}) {
      matrix->round_products(pool);
      result.product_error.keep_larger(matrix->product_error());
    }
  compare(layer, *now, result);
  if (before_) add_adjacent(layer - 1, *now, result);
  add_shared(layer, *now, result);
  before_ = std::move(now);
}

void SidePass::compare(int layer, const Prepared& now, RedundancyResult& result) {
  const Grouping& grouping = context_.grouping;
  PairPlan plan;
  plan.thresholds = context_.thresholds;
  plan.heads = context_.options.per_head;
  PairPlan control = plan;
  PairPlan in_sets = plan;
  control.prompts = false;
  in_sets.heads = false;
  in_sets.across_sets = false;
  plan.partners = context_.options.top_partners;
  if (is_stored()) plan.heat_bins = static_cast<int>(std::min<int64_t>(kMaxHeatmapBins, grouping.pages()));

  if (result.pairs == 0 && context_.estimate) {
    const double prepared_s = std::chrono::duration<double>(Clock::now() - started_).count();
    result.estimated_s = (prepared_s + seconds_of_layer(now, plan)) * context_.pages.layers *
                         static_cast<double>(sides_of(context_.pages).size());
    context_.estimate(result.estimated_s);
  }
  int64_t before = 0;
  const auto compare_pages = [&](const PageMatrix& pages, const PairPlan& by) {
    const auto progress = [&](int64_t done) {
      if (context_.progress) context_.progress(before + done);
    };
    AllPairs pairs = device() ? compare_all_pairs_on_device(pages, grouping, by, *device(), progress)
                              : compare_all_pairs(pages, grouping, by, context_.pool, progress);
    before += pair_count(grouping, by.across_sets);
    return pairs;
  };
  AllPairs real = compare_pages(now.real, plan);
  const AllPairs everywhere = compare_pages(now.everywhere, control);
  const AllPairs within = compare_pages(now.within, in_sets);
  result.pairs += pairs_of_layer(grouping);
  add_similarity(layer, now, real, everywhere, within, result);
  growth_.add(real, within);
  differences_.add(real);
  if (plan.heat_bins > 0) result.heatmaps.push_back({layer, side_, plan.heat_bins, heatmap_of(real)});
  result.partners.push_back({layer, side_, std::move(real.partners)});
}

int64_t pairs_of_layer(const Grouping& grouping) {
  return 2 * pair_count(grouping, true) + pair_count(grouping, false);
}

// Covers and clusters beside the pairs, in pairs: their products alone, where nothing is freed. A product is
// about three fifths of what a pair costs with all metrics (332 ms of one thread for a cover of 8,192 random
// pages, 594 for all of their pairs); on a device the same is assumed.
double SidePass::seconds_of_layer(const Prepared& now, const PairPlan& plan) const {
  constexpr double kProductShare = 0.6;
  const Grouping& grouping = context_.grouping;
  const auto all = static_cast<double>(pair_count(grouping, true));
  const auto pages = static_cast<double>(grouping.pages());
  const auto clusters = static_cast<double>(cluster_count(grouping.pages(), context_.options.clusters));
  const double products = 2 * (all + context_.options.cluster_iterations * pages * clusters);
  const double pairs = static_cast<double>(pairs_of_layer(grouping)) + kProductShare * products;
  const double seconds = device() ? estimated_seconds_on_device(now.real, grouping, plan, *device())
                                  : estimated_seconds(now.real, grouping, plan, context_.pool);
  return seconds * pairs / all;
}

void SidePass::add_similarity(int layer, const Prepared& now, const AllPairs& real,
                              const AllPairs& everywhere_pairs, const AllPairs& within,
                              RedundancyResult& result) const {
  const Grouping& grouping = context_.grouping;
  const std::span<const float> thresholds = context_.thresholds;
  const int64_t pages = grouping.pages();
  for (const int head : scopes_of(context_)) {
    const bool joined = head == kJoinedHeads;
    const PairList random(now.real, now.real, context_.orders.partner, head, context_.pool);
    for (const Metric metric : all_metrics()) {
      const GroupTotals group = everything(joined ? real.joined(metric) : real.of_head(head, metric));
      const GroupTotals shuffled =
          everything(joined ? everywhere_pairs.joined(metric) : everywhere_pairs.of_head(head, metric));
      result.similarity.push_back(
          {layer, side_, head, metric, "all", pages, summarize_group(group, metric, thresholds, joined),
           with_redundancy(random.summary(metric, 0, pages, thresholds)),
           summarize_group(shuffled, metric, thresholds, joined),
           metric == Metric::kL2 ? mean_distance(group.totals, now.real.unit()) : 0.0});
    }
  }
  const PairList random(now.real, now.real, context_.orders.partner_in_set, kJoinedHeads, context_.pool);
  for (std::size_t s = 0; s < grouping.sets.size(); ++s) {
    const PageRange& range = grouping.sets[s];
    if (range.size() < 2) continue;
    for (const Metric metric : all_metrics()) {
      const GroupTotals group = one_set(real.joined(metric), s, range);
      result.similarity.push_back(
          {layer, side_, kJoinedHeads, metric, grouping.set_names[s], range.size(),
           summarize_group(group, metric, thresholds, true),
           with_redundancy(random.summary(metric, range.first, range.last, thresholds)),
           summarize_group(one_set(within.joined(metric), s, range), metric, thresholds, true),
           metric == Metric::kL2 ? mean_distance(group.totals, now.real.unit()) : 0.0});
    }
  }
}

void SidePass::add_adjacent(int layer, const Prepared& now, RedundancyResult& result) const {
  const int64_t pages = context_.grouping.pages();
  std::vector<int64_t> same(static_cast<std::size_t>(pages));
  std::iota(same.begin(), same.end(), 0);
  for (const int head : scopes_of(context_)) {
    const PairList real(before_->real, now.real, same, head, context_.pool);
    const PairList random(before_->real, now.real, context_.orders.partner, head, context_.pool);
    // Two independent orders, so that no token meets itself.
    const PairList shuffled(before_->everywhere, now.within, same, head, context_.pool);
    for (const Metric metric : all_metrics())
      result.adjacent_layers.push_back({layer, side_, head, metric,
                                        real.summary(metric, 0, pages, context_.thresholds),
                                        random.summary(metric, 0, pages, context_.thresholds),
                                        shuffled.summary(metric, 0, pages, context_.thresholds)});
  }
}

namespace {

using FreedPages = std::array<std::vector<int64_t>, kCoverMetrics.size()>;  // [metric][threshold]

FreedPages count_freed(const std::vector<Cover>& heads, std::size_t thresholds) {
  FreedPages freed;
  for (std::size_t m = 0; m < freed.size(); ++m) {
    freed[m].resize(thresholds);
    for (const Cover& cover : heads)
      for (std::size_t t = 0; t < thresholds; ++t) {
        const std::vector<char>& pages = (m == 0 ? cover.cosine : cover.l2)[t];
        freed[m][t] += std::count(pages.begin(), pages.end(), 1);
      }
  }
  return freed;
}

ClusterRow cluster_row(const AnalysisContext& context, int layer, SideBasis side, const Clusters& real,
                       const Clusters& shuffled) {
  const int64_t pages = context.grouping.pages();
  const int64_t bytes = shape_of(context.pages).page_values() * dtype_bytes(context.pages.dtype);
  const auto explained = [](const Clusters& clusters) {
    return clusters.total_variance > 0.0 ? 1.0 - clusters.inertia / clusters.total_variance : 1.0;
  };
  const auto distance = [&](double q) {
    return real.distances[static_cast<std::size_t>(q * static_cast<double>(real.distances.size() - 1))];
  };
  ClusterRow row;
  row.layer = layer;
  row.side = side;
  row.k = static_cast<int64_t>(real.sizes.size());
  row.rule = cluster_rule(pages, context.options.clusters);
  row.iterations = real.iterations;
  row.inertia = real.inertia;
  row.inertia_shuffled = shuffled.inertia;
  row.explained = explained(real);
  row.explained_shuffled = explained(shuffled);
  row.sizes = real.sizes;
  row.empty = std::count(real.sizes.begin(), real.sizes.end(), 0);
  row.distance_mean =
      std::accumulate(real.distances.begin(), real.distances.end(), 0.0) / static_cast<double>(pages);
  row.distance_median = distance(0.5);
  row.distance_95 = distance(0.95);
  row.distance_max = distance(1.0);
  row.dense_bytes = pages * bytes;
  row.centroid_bytes = (row.k - row.empty) * bytes;
  row.index_bytes = pages * 4;
  row.relative_error = real.squared_norms > 0.0 ? std::sqrt(real.inertia / real.squared_norms) : 0.0;
  return row;
}

}  // namespace

// What sharing pages would free.
void SidePass::add_shared(int layer, const Prepared& now, RedundancyResult& result) const {
  const SharedParts parts = find_shared_parts(context_, layer, side_, is_stored(), now.real, now.everywhere);
  result.clusters.push_back(cluster_row(context_, layer, side_, parts.clusters, parts.shuffled_clusters));
  if (is_stored()) result.duplicates.push_back(parts.duplicates);
  const FreedPages freed = count_freed(parts.covers, context_.thresholds.size());
  const FreedPages control = count_freed(parts.shuffled_covers, context_.thresholds.size());
  const PageShape shape = shape_of(context_.pages);
  const int64_t pages = shape.pages * shape.heads;
  const int64_t page_bytes = shape.head_values() * dtype_bytes(context_.pages.dtype);
  for (std::size_t m = 0; m < kCoverMetrics.size(); ++m)
    for (std::size_t t = 0; t < context_.thresholds.size(); ++t)
      result.opportunity.push_back({layer, side_, kCoverMetrics[m], context_.options.thresholds[t], pages,
                                    freed[m][t], freed[m][t] * page_bytes, pages * page_bytes,
                                    control[m][t]});
}

void SidePass::finish(RedundancyResult& result) {
  result.layer_matrix.push_back({side_, layer_matrix(context_.pages, side_, centres_, context_.pool)});
  for (GrowthRow& row : growth_.rows(side_)) result.growth.push_back(std::move(row));
  for (SetDifferenceRow& row :
       differences_.rows(side_, context_.options.bootstrap_resamples, context_.options.seed))
    result.set_differences.push_back(std::move(row));
}

}  // namespace kva
