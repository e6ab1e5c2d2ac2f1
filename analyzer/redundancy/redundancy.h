// Where a KV cache repeats itself: similarity of all pairs of pages, always beside two controls, and what
// sharing those pages would really free. DESIGN.md section 5 defines each number; reports/redundancy_json.h
// writes them down.
//
// A page here is page_tokens tokens of one layer and side. Scope "layer" joins the KV heads of a page, scope
// "head" looks at one KV head. Keys are analysed before and after RoPE where the model has it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/parallel.h"
#include "runtime/backend/backend.h"
#include "runtime/kv/page_set.h"

namespace kva {

enum class Metric { kCosine, kCosineCentered, kL2, kHamming, kJaccard };
inline constexpr int kMetrics = 5;
std::string_view metric_name(Metric metric);  // as in report.json
// The least value a metric can take: -1, or 0 for hamming and jaccard. The largest is 1.
float metric_low(Metric metric);

// A side, and for keys the basis they are looked at in.
enum class SideBasis { kKeyRotated, kKeyPlain, kValue };
std::string_view side_name(SideBasis side);   // "K" or "V"
std::string_view basis_name(SideBasis side);  // "rotated", "plain", or "" for values
// Those a page set has: without RoPE there are plain keys only.
std::vector<SideBasis> sides_of(const PageSet& pages);
// Keys as they are stored (rotated for page-relative storage, which is neither).
SideBasis stored_keys(const PageSet& pages);

inline constexpr int kJoinedHeads = -1;  // for `head`: scope "layer"
inline constexpr std::array<int, 7> kPercentiles = {1, 5, 25, 50, 75, 95, 99};
inline constexpr int kReportBins = 100;
inline constexpr int kMaxHeatmapBins = 96;
inline constexpr int8_t kHeatmapNoPair = -128;  // a cell that holds self pairs only

struct RedundancyOptions {
  uint64_t seed = 42;
  int clusters = 0;  // 0: the square root of the number of pages, rounded up
  int cluster_iterations = 20;
  int top_partners = 4;
  std::vector<double> thresholds = {0.8, 0.9, 0.95, 0.99};  // ascending, within (-1, 1)
  double jaccard_share = 0.25;                              // of a page's numbers, by magnitude
  double outlier_factor = 6.0;                              // of the layer's median channel rms
  int bootstrap_resamples = 2000;
  bool per_head = true;  // also analyse each KV head
  // What products of pages are computed in, summed in f32: kF32, or kBF16 where the processor multiplies it.
  DType products = DType::kF32;
  int64_t memory_limit_bytes = 0;  // 0: what the machine has available
  // Compares, covers and clusters pages and finds duplicates there; null: on the CPU.
  std::shared_ptr<Backend> device = nullptr;
};

// By how much bf16 products can have moved a similarity of two pages, at most (page_matrix.h).
struct ProductError {
  double cosine = 0.0;
  double centred = 0.0;
  double l2 = 0.0;

  void keep_larger(const ProductError& other);
};

struct PairSummary {
  int64_t pairs = 0;
  double mean = 0.0;
  double std = 0.0;
  std::array<double, kPercentiles.size()> percentiles{};
  std::vector<double> share_over;  // [threshold], of pairs strictly over it
  std::vector<double> redundancy;  // [threshold], of pages with at least one partner over it; may be empty
  std::vector<int64_t> histogram;  // kReportBins equal bins over [metric_low, 1]; may be empty
};

struct SimilarityRow {
  int layer = 0;
  SideBasis side = SideBasis::kValue;
  int head = kJoinedHeads;
  Metric metric = Metric::kCosine;
  std::string group;  // "all" or a set's name
  int64_t pages = 0;
  PairSummary real;
  PairSummary random;    // each page against one random other page of the group
  PairSummary shuffled;  // pages made of the group's tokens in random order
  double l2_mean = 0.0;  // kL2 only: mean absolute distance
};

// Pages of one layer against the pages of the next at the same position.
struct AdjacentRow {
  int layer = 0;
  SideBasis side = SideBasis::kValue;
  int head = kJoinedHeads;
  Metric metric = Metric::kCosine;
  PairSummary real;
  PairSummary random;
  PairSummary shuffled;  // an independent order of tokens for each of the two layers
};

struct LayerMatrix {
  SideBasis side = SideBasis::kValue;
  std::vector<double> values;  // [layers, layers], mean cosine_centered of the same page in two layers
};

struct Heatmap {
  int layer = 0;
  SideBasis side = SideBasis::kValue;
  int bins = 0;
  std::vector<int8_t> data;  // [bins, bins], value * 127, or kHeatmapNoPair
};

struct HeatmapSet {
  std::string set;
  double first = 0.0;  // as a share of all pages
  double last = 0.0;
};

struct DuplicateRow {
  int layer = 0;
  SideBasis side = SideBasis::kValue;  // keys as stored
  int64_t pages = 0;                   // pages x KV heads
  int64_t unique = 0;
  int64_t duplicates = 0;
  int64_t bytes = 0;  // of the duplicates
  int64_t shuffled_duplicates = 0;
};

struct ClusterRow {
  int layer = 0;
  SideBasis side = SideBasis::kValue;
  int64_t k = 0;
  std::string rule;
  int iterations = 0;
  double inertia = 0.0;
  double inertia_shuffled = 0.0;
  double explained = 0.0;  // 1 - inertia / total variance
  double explained_shuffled = 0.0;
  std::vector<int64_t> sizes;  // descending
  int64_t empty = 0;
  double distance_mean = 0.0;  // of a page to its centroid
  double distance_median = 0.0;
  double distance_95 = 0.0;
  double distance_max = 0.0;
  int64_t dense_bytes = 0;      // of the pages, as stored
  int64_t centroid_bytes = 0;   // of the representatives in the same type
  int64_t index_bytes = 0;      // a 4-byte reference a page
  double relative_error = 0.0;  // Frobenius, of replacing each page by its centroid

  int64_t held_bytes() const { return centroid_bytes + index_bytes; }
  int64_t freed_bytes() const { return dense_bytes - held_bytes(); }
};

struct OpportunityRow {
  int layer = 0;
  SideBasis side = SideBasis::kValue;
  Metric metric = Metric::kCosine;
  double threshold = 0.0;
  int64_t pages = 0;  // pages x KV heads
  int64_t freed_pages = 0;
  int64_t freed_bytes = 0;
  int64_t dense_bytes = 0;
  int64_t shuffled_freed_pages = 0;
};

struct GrowthRow {
  std::string set;
  SideBasis side = SideBasis::kValue;
  double threshold = 0.9;
  std::vector<int64_t> context_tokens;
  std::vector<double> redundancy;
  std::vector<double> shuffled;
};

struct SetDifferenceRow {
  std::string a;
  std::string b;
  SideBasis side = SideBasis::kValue;
  Metric metric = Metric::kCosine;
  std::string statistic;  // "mean" or "redundancy@0.9"
  double difference = 0.0;
  double low = 0.0;
  double high = 0.0;
  std::string verdict;  // "higher", "lower" or "no difference found"
  int64_t prompts_a = 0;
  int64_t prompts_b = 0;
};

struct NormRow {
  int layer = 0;
  double k_norm = 0.0;  // mean over tokens and heads
  double v_norm = 0.0;
  int64_t k_outlier_channels = 0;
  int64_t v_outlier_channels = 0;
};

struct Partner {
  int32_t page = -1;  // -1: none
  float similarity = -2.0f;
};

struct PartnerTable {
  int layer = 0;
  SideBasis side = SideBasis::kValue;
  std::vector<Partner>
      partners;  // [pages, top_partners], cosine_centered, best first, ties to the lower page
};

struct RedundancyResult {
  RedundancyOptions options;
  int layers = 0;
  int kv_heads = 0;
  int64_t pages = 0;
  int64_t pairs = 0;             // page pairs looked at in all, controls included
  DType products = DType::kF32;  // what products were computed in
  ProductError product_error;    // of all of them; 0 for f32, whose error is below what is reported
  double estimated_s = 0.0;      // what the analysis was expected to take
  std::vector<SimilarityRow> similarity;
  std::vector<AdjacentRow> adjacent_layers;
  std::vector<LayerMatrix> layer_matrix;
  std::vector<Heatmap> heatmaps;
  std::vector<HeatmapSet> heatmap_sets;
  std::vector<DuplicateRow> duplicates;
  std::vector<ClusterRow> clusters;
  std::vector<OpportunityRow> opportunity;
  std::vector<GrowthRow> growth;
  std::vector<SetDifferenceRow> set_differences;
  std::vector<NormRow> norms;
  std::vector<PartnerTable> partners;
};

// Called from the calling thread while pairs are compared and after each piece of work, with how many of all
// page pairs are done; `label` says what of. May throw to stop the analysis (throw_if_interrupted() does).
using AnalysisProgress = std::function<void(int64_t done, int64_t total, std::string_view label)>;

// Called once, before pairs are compared: how long the analysis takes from then on, about.
using AnalysisEstimate = std::function<void(double seconds)>;

// Bytes analyze_redundancy() needs beyond the page set itself.
int64_t redundancy_memory_bytes(const PageSet& pages, const RedundancyOptions& options, int threads);

// Bytes of options.device that it needs at most, tiles and lists included.
int64_t redundancy_device_bytes(const PageSet& pages, const RedundancyOptions& options);

// The whole analysis. The same numbers for the same pages and options at any thread count. Throws InputError
// for options out of range, fewer than two pages, too little memory, and pages with NaN or infinity.
RedundancyResult analyze_redundancy(const PageSet& pages, const RedundancyOptions& options, ThreadPool& pool,
                                    const AnalysisProgress& progress = {},
                                    const AnalysisEstimate& estimate = {});

}  // namespace kva
