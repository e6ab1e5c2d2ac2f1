#include "analyzer/redundancy/redundancy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "analyzer/redundancy/layer_pass.h"
#include "analyzer/redundancy/memory.h"
#include "kernels/onednn_product.h"
#include "kernels/similarity.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"

namespace kva {

std::string_view metric_name(Metric metric) {
  switch (metric) {
    case Metric::kCosine: return "cosine";
    case Metric::kCosineCentered: return "cosine_centered";
    case Metric::kL2: return "l2_similarity";
    case Metric::kHamming: return "hamming";
    case Metric::kJaccard: return "jaccard";
  }
  return "?";
}

float metric_low(Metric metric) {
  return metric == Metric::kHamming || metric == Metric::kJaccard ? 0.0f : -1.0f;
}

std::string_view side_name(SideBasis side) { return side == SideBasis::kValue ? "V" : "K"; }

std::string_view basis_name(SideBasis side) {
  switch (side) {
    case SideBasis::kKeyRotated: return "rotated";
    case SideBasis::kKeyPlain: return "plain";
    case SideBasis::kValue: return "";
  }
  return "?";
}

std::vector<SideBasis> sides_of(const PageSet& pages) {
  if (!pages.rope) return {SideBasis::kKeyPlain, SideBasis::kValue};
  return {SideBasis::kKeyRotated, SideBasis::kKeyPlain, SideBasis::kValue};
}

SideBasis stored_keys(const PageSet& pages) {
  return pages.rope && pages.key_basis != KeyBasis::kPlain ? SideBasis::kKeyRotated : SideBasis::kKeyPlain;
}

namespace {

void check_options(const RedundancyOptions& options) {
  const auto fail = [](const char* name, const char* expected, double found) {
    throw InputError(fmt::format("analysis options: {}: expected {}, found {}", name, expected, found));
  };
  if (options.clusters < 0) fail("clusters", "0 (by rule) or more", options.clusters);
  if (options.cluster_iterations < 1 || options.cluster_iterations > 1000)
    fail("cluster_iterations", "1 to 1000", options.cluster_iterations);
  if (options.top_partners < 0 || options.top_partners > 64)
    fail("top_partners", "0 to 64", options.top_partners);
  if (options.thresholds.empty() || options.thresholds.size() > kMaxThresholds)
    fail("thresholds", "1 to 8 of them", static_cast<double>(options.thresholds.size()));
  for (std::size_t t = 0; t < options.thresholds.size(); ++t) {
    const double threshold = options.thresholds[t];
    if (!(threshold > -1.0 && threshold < 1.0)) fail("thresholds", "numbers between -1 and 1", threshold);
    if (t > 0 && threshold <= options.thresholds[t - 1]) fail("thresholds", "ascending numbers", threshold);
  }
  if (!(options.jaccard_share > 0.0 && options.jaccard_share < 1.0))
    fail("jaccard_share", "a share between 0 and 1", options.jaccard_share);
  if (!(options.outlier_factor > 0.0 && std::isfinite(options.outlier_factor)))
    fail("outlier_factor", "a number over 0", options.outlier_factor);
  if (options.products == DType::kF16)
    throw InputError("analysis options: products: expected f32 or bf16, found f16");
  if (options.bootstrap_resamples < 100 || options.bootstrap_resamples > 1000000)
    fail("bootstrap_resamples", "100 to 1000000", options.bootstrap_resamples);
}

void check_pages(const PageSet& pages) {
  KVA_CHECK(pages.layers >= 1 && pages.kv_heads >= 1 && pages.head_dim >= 1 && pages.page_tokens >= 1 &&
                static_cast<int>(pages.values.size()) == 2 * pages.layers,
            "a page set with a shape");
  if (pages.page_count() < 2)
    throw InputError(
        fmt::format("pages: expected at least 2 full pages of {} tokens to compare, found {}; use "
                    "longer prompts or a smaller --page-size",
                    pages.page_tokens, pages.page_count()));
  constexpr int64_t kMostPages = int64_t{1} << 24;  // pair totals hold 2^47 pairs
  if (pages.page_count() > kMostPages)
    throw InputError(
        fmt::format("pages: expected at most {} pages, found {}; use a larger --page-size or fewer "
                    "prompts",
                    kMostPages, pages.page_count()));
}

std::vector<HeatmapSet> heatmap_sets_of(const Grouping& grouping) {
  std::vector<HeatmapSet> sets;
  const double pages = static_cast<double>(grouping.pages());
  for (std::size_t s = 0; s < grouping.sets.size(); ++s)
    if (grouping.sets[s].size() > 0)
      sets.push_back({grouping.set_names[s], static_cast<double>(grouping.sets[s].first) / pages,
                      static_cast<double>(grouping.sets[s].last) / pages});
  return sets;
}

}  // namespace

RedundancyResult analyze_redundancy(const PageSet& pages, const RedundancyOptions& options, ThreadPool& pool,
                                    const AnalysisProgress& progress, const AnalysisEstimate& estimate) {
  check_options(options);
  check_pages(pages);
  check_memory(redundancy_memory_bytes(pages, options, pool.threads()), options.memory_limit_bytes);
  const Grouping grouping = group_pages(pages);
  const ControlOrders orders = draw_controls(grouping, pages.page_tokens, options.seed);
  const std::vector<SideBasis> sides = sides_of(pages);
  const int64_t of_layer = pairs_of_layer(grouping);
  const int64_t total = static_cast<int64_t>(sides.size()) * pages.layers * of_layer;
  int64_t done = 0;
  std::string label;
  const auto report = [&](int64_t pairs) {
    throw_if_interrupted();
    if (progress) progress(done + pairs, total, label);
  };
  const AnalysisContext context{
      pages, options, grouping, orders, {options.thresholds.begin(), options.thresholds.end()},
      pool,  report,  estimate};

  RedundancyResult result;
  result.options = options;
  result.layers = pages.layers;
  result.kv_heads = pages.kv_heads;
  result.pages = pages.page_count();
  // Elsewhere oneDNN has no such product, and widened ones would be no faster than exact f32 ones.
  result.products = multiplies_bf16() ? options.products : DType::kF32;
  result.heatmap_sets = heatmap_sets_of(grouping);
  for (int layer = 0; layer < pages.layers; ++layer) {
    result.norms.emplace_back();
    result.norms.back().layer = layer;
  }
  for (const SideBasis side : sides) {
    const std::string name =
        fmt::format("{}{}{}", side_name(side), basis_name(side).empty() ? "" : " ", basis_name(side));
    SidePass pass(context, side);
    for (int layer = 0; layer < pages.layers; ++layer) {
      label = fmt::format("{}, layer {}", name, layer);
      pass.take_layer(layer, result);
      done += of_layer;
      report(0);
    }
    label = fmt::format("{}, across layers", name);
    pass.finish(result);
    report(0);
  }
  return result;
}

}  // namespace kva
