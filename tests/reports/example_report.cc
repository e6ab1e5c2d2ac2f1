#include "tests/reports/example_report.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "reports/text_format.h"
#include "tests/reports/example_statistics.h"

namespace kva {

using namespace example;

namespace {

Json similarity_row(const Series& series, const std::string& metric, const std::string& group, int layer,
                    int layers, int head, int pages) {
  const bool whole_layer = head < 0;
  Spread spread = spread_of(series, metric, group, depth_of(layer, layers));
  if (!whole_layer) spread.mean += 0.02 * head;
  const Spread shuffled = shuffled_of(spread);
  const int64_t pairs = int64_t{pages} * (pages - 1) / 2;
  Json row = {{"layer", layer},
              {"side", series.side},
              {"basis", series.basis},
              {"scope", whole_layer ? "layer" : "head"},
              {"head", whole_layer ? Json(nullptr) : Json(head)},
              {"metric", metric},
              {"group", group},
              {"pages", pages}};
  row.update(spread_json(spread, pairs));
  row["redundancy"] = shares(spread, pages / 8);
  row["histogram"] = whole_layer ? histogram(spread, pairs) : Json(nullptr);
  if (metric == "l2_similarity") row["l2_mean"] = rounded(30 * (1 - spread.mean));
  Json random = spread_json(spread, pages);
  random["redundancy"] = shares(spread, 1);
  Json control = spread_json(shuffled, pairs);
  control["redundancy"] = shares(shuffled, pages / 8);
  control["histogram"] = whole_layer ? histogram(shuffled, pairs) : Json(nullptr);
  row["controls"] = {{"random", random}, {"shuffled", control}};
  return row;
}

Json similarity(const ExampleShape& shape) {
  Json rows = Json::array();
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (const Series& series : series_of(shape.rope)) {
      for (const std::string& metric : kMetrics) {
        rows.push_back(similarity_row(series, metric, "all", layer, shape.layers, -1, kPages));
        for (std::size_t set = 0; set < kSets.size(); ++set)
          rows.push_back(similarity_row(series, metric, kSets[set], layer, shape.layers, -1, kSetPages[set]));
        for (int head = 0; head < shape.kv_heads; ++head)
          rows.push_back(similarity_row(series, metric, "all", layer, shape.layers, head, kPages));
      }
    }
  }
  return rows;
}

Json adjacent_layers(const ExampleShape& shape) {
  Json rows = Json::array();
  for (int layer = 0; layer + 1 < shape.layers; ++layer) {
    for (const Series& series : series_of(shape.rope)) {
      for (const std::string& metric : kMetrics) {
        Spread spread = spread_of(series, metric, "all", depth_of(layer, shape.layers));
        spread.mean *= series.side == "K" ? 0.6 : 0.3;
        Json row = {{"layer", layer},   {"next", layer + 1}, {"side", series.side}, {"basis", series.basis},
                    {"scope", "layer"}, {"head", nullptr},   {"metric", metric}};
        row.update(spread_json(spread, kPages));
        Spread random = spread;
        random.mean *= 0.4;
        row["controls"] = {{"random", spread_json(random, kPages)},
                           {"shuffled", spread_json(shuffled_of(spread), kPages)}};
        rows.push_back(row);
      }
    }
  }
  return rows;
}

Json layer_matrix(const ExampleShape& shape) {
  Json rows = Json::array();
  for (const Series& series : series_of(shape.rope)) {
    Json values = Json::array();
    for (int i = 0; i < shape.layers; ++i) {
      Json line = Json::array();
      for (int j = 0; j < shape.layers; ++j)
        line.push_back(i == j ? 1.0 : rounded(series.level * std::exp(-std::abs(i - j) / 2.5)));
      values.push_back(line);
    }
    rows.push_back(
        {{"side", series.side}, {"basis", series.basis}, {"metric", "cosine_centered"}, {"values", values}});
  }
  return rows;
}

std::string heatmap_bytes(int bins, double level, int layer) {
  std::string bytes;
  for (int i = 0; i < bins; ++i) {
    for (int j = 0; j < bins; ++j) {
      const bool same_set = (i * 3 / bins) == (j * 3 / bins);
      const double wave = 0.12 * std::sin(0.7 * i + layer) * std::sin(0.7 * j + layer);
      const double near = 0.35 * std::exp(-std::abs(i - j) / 4.0);
      const double value = level * (same_set ? 0.7 : 0.25) + wave + near;
      bytes += static_cast<char>(static_cast<signed char>(std::lround(std::min(1.0, value) * 127)));
    }
  }
  return base64_encode(bytes);
}

Json heatmaps(const ExampleShape& shape) {
  Json rows = Json::array();
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (const Series& series : series_of(shape.rope)) {
      if (shape.rope && series.basis == "plain") continue;
      rows.push_back({{"layer", layer},
                      {"side", series.side},
                      {"basis", series.basis},
                      {"metric", "cosine_centered"},
                      {"bins", shape.heatmap_bins},
                      {"scale", 1.0 / 127},
                      {"data", heatmap_bytes(shape.heatmap_bins, series.level, layer)}});
    }
  }
  return rows;
}

Json heatmap_sets() {
  Json rows = Json::array();
  double first = 0;
  for (std::size_t set = 0; set < kSets.size(); ++set) {
    const double last = first + static_cast<double>(kSetPages[set]) / kPages;
    rows.push_back({{"set", kSets[set]},
                    {"first", rounded(first)},
                    {"last", set + 1 == kSets.size() ? 1.0 : rounded(last)}});
    first = last;
  }
  return rows;
}

Json opportunity(const ExampleShape& shape) {
  Json rows = Json::array();
  const int64_t pages = int64_t{kPages} * shape.kv_heads;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (const Series& series : series_of(shape.rope)) {
      for (const std::string metric : {"cosine", "l2_similarity"}) {
        const Spread spread = spread_of(series, metric, "all", depth_of(layer, shape.layers));
        for (const double threshold : kThresholds) {
          const auto freed_at = [&](const Spread& of) {
            return static_cast<int64_t>(
                std::floor(0.9 * static_cast<double>(pages) * (1 - std::pow(of.below(threshold), 40))));
          };
          const int64_t freed = freed_at(spread);
          rows.push_back({{"layer", layer},
                          {"side", series.side},
                          {"basis", series.basis},
                          {"metric", metric},
                          {"threshold", threshold},
                          {"pages", pages},
                          {"freed_pages", freed},
                          {"freed_bytes", freed * kPageBytes},
                          {"dense_bytes", pages * kPageBytes},
                          {"share", rounded(static_cast<double>(freed) / static_cast<double>(pages))},
                          {"shuffled_freed_pages", freed_at(shuffled_of(spread))}});
        }
      }
    }
  }
  return rows;
}

Json clusters(const ExampleShape& shape) {
  Json rows = Json::array();
  const int64_t dense = int64_t{kPages} * kPageBytes * shape.kv_heads;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (const Series& series : series_of(shape.rope)) {
      Json sizes = Json::array();
      for (int k = 0; k < 34; ++k) sizes.push_back(12 + (k * 37 + layer * 11) % 44);
      const double explained = 0.1 + (0.1 + 0.5 * series.level) / (1 + 0.1 * layer);
      const int64_t centroids = 34 * kPageBytes * shape.kv_heads;
      const int64_t index = kPages * 2;
      rows.push_back({{"layer", layer},
                      {"side", series.side},
                      {"basis", series.basis},
                      {"k", 34},
                      {"rule", "sqrt(pages)"},
                      {"iterations", 25},
                      {"inertia", 1000 * (1 - explained)},
                      {"inertia_shuffled", 1000 * (1 - 0.6 * explained)},
                      {"explained", rounded(explained)},
                      {"explained_shuffled", rounded(0.6 * explained)},
                      {"sizes", sizes},
                      {"empty", 0},
                      {"distance", {{"mean", 12.5}, {"50", 12.1}, {"95", 18.4}, {"max", 25.0}}},
                      {"sharing",
                       {{"dense_bytes", dense},
                        {"centroid_bytes", centroids},
                        {"index_bytes", index},
                        {"held_bytes", centroids + index},
                        {"freed_bytes", dense - centroids - index},
                        {"relative_error", rounded(std::sqrt(1 - explained))}}}});
    }
  }
  return rows;
}

Json duplicates(const ExampleShape& shape) {
  Json rows = Json::array();
  const int64_t pages = int64_t{kPages} * shape.kv_heads;
  for (int layer = 0; layer < shape.layers; ++layer)
    for (const std::string side : {"K", "V"}) {
      const int64_t copies = layer == 0 && side == "V" ? 18 : 0;
      rows.push_back({{"layer", layer},
                      {"side", side},
                      {"pages", pages},
                      {"unique", pages - copies},
                      {"duplicates", copies},
                      {"bytes", copies * kPageBytes},
                      {"shuffled_duplicates", 0}});
    }
  return rows;
}

Json growth(const ExampleShape& shape) {
  Json rows = Json::array();
  for (std::size_t set = 0; set < kSets.size(); ++set) {
    for (const Series& series : series_of(shape.rope)) {
      Json tokens = Json::array(), redundancy = Json::array(), shuffled = Json::array();
      for (int step = 1; step <= 12; ++step) {
        tokens.push_back(step * 64);
        const double level = series.level * (set == 1 ? 1.2 : 0.6);
        redundancy.push_back(rounded(std::min(1.0, level * (1 - std::exp(-step / 5.0)))));
        shuffled.push_back(rounded(0.4 * level * (1 - std::exp(-step / 6.0))));
      }
      rows.push_back({{"set", kSets[set]},
                      {"side", series.side},
                      {"basis", series.basis},
                      {"metric", "cosine_centered"},
                      {"threshold", 0.9},
                      {"context_tokens", tokens},
                      {"redundancy", redundancy},
                      {"shuffled", shuffled}});
    }
  }
  return rows;
}

Json set_differences(const ExampleShape& shape) {
  Json rows = Json::array();
  const std::vector<std::pair<int, int>> pairs = {{0, 1}, {0, 2}, {1, 2}};
  for (const auto& [a, b] : pairs) {
    for (const Series& series : series_of(shape.rope)) {
      for (const std::string& metric : kMetrics) {
        for (const std::string statistic : {"mean", "redundancy@0.9"}) {
          const double difference = (a == 1 ? 0.09 : b == 1 ? -0.14 : -0.03) * (series.side == "V" ? 0.5 : 1);
          const double half = statistic == "mean" ? 0.04 : 0.11;
          const double low = difference - half, high = difference + half;
          rows.push_back({{"a", kSets[a]},
                          {"b", kSets[b]},
                          {"side", series.side},
                          {"basis", series.basis},
                          {"metric", metric},
                          {"statistic", statistic},
                          {"difference", rounded(difference)},
                          {"low", rounded(low)},
                          {"high", rounded(high)},
                          {"verdict", low > 0    ? "higher"
                                      : high < 0 ? "lower"
                                                 : "no difference found"},
                          {"prompts_a", 8},
                          {"prompts_b", 8}});
        }
      }
    }
  }
  return rows;
}

Json norms(const ExampleShape& shape) {
  Json rows = Json::array();
  for (int layer = 0; layer < shape.layers; ++layer) {
    const double k = 18.0 / (1 + 0.05 * layer);
    const double v = 1.2 + layer * 0.9;
    rows.push_back({{"layer", layer},
                    {"k_norm", rounded(k)},
                    {"v_norm", rounded(v)},
                    {"ratio", rounded(k / v)},
                    {"k_outlier_channels", layer % 3},
                    {"v_outlier_channels", 0}});
  }
  return rows;
}

Json prompts_json() {
  Json rows = Json::array();
  for (std::size_t set = 0; set < kSets.size(); ++set)
    for (int i = 0; i < 8; ++i)
      rows.push_back({{"set", kSets[set]},
                      {"name", fmt::format("{}-{}", kSets[set], i + 1)},
                      {"tokens", kSetPages[set] * 2 + 5},
                      {"generated", 16},
                      {"pages", kSetPages[set] / 8},
                      {"truncated", i == 7},
                      {"hash", fmt::format("{:016x}", 0x9e3779b97f4a7c15ULL * (i + 1 + set * 8))}});
  return rows;
}

void add_run(Json& report, const ExampleShape& shape) {
  report["schema"] = "kvanalyze.report";
  report["schema_version"] = 1;
  report["kind"] = "redundancy";
  report["provenance"] = {
      {"command", "kvanalyze --model synthetic-example --seed 7"},
      {"version", "0.1.0"},
      {"commit", "0123456789ab"},
      {"build", {{"type", "Release"}, {"compiler", "GNU 12.2.0"}, {"cuda", ""}, {"faiss", "1.7.3"}}},
      {"host", {{"cpu", "Example CPU"}, {"cores", 2}, {"simd", "AVX3"}, {"memory_bytes", int64_t{8} << 30}}},
      {"device", "cpu"},
      {"threads", 2},
      {"seed", 7},
      {"started", "2026-01-02T03:04:05Z"},
      {"duration_s", 61.5},
      {"recipe", "dense(f16)"},
      {"options",
       {{"model", "synthetic-example"},
        {"page_size", 16},
        {"max_tokens", 16},
        {"chat", false},
        {"prompt_sets", kSets}}}};
  report["model"] = {{"name", "synthetic-example"},
                     {"family", "llama"},
                     {"architecture", "LlamaForCausalLM"},
                     {"path", "/models/synthetic-example"},
                     {"repository", "example/synthetic"},
                     {"revision", "main"},
                     {"variant", "instruct"},
                     {"source_quantization", "none"},
                     {"tensor_hash", "xxh3:0011223344556677"},
                     {"parameters", 1234567},
                     {"layers", shape.layers},
                     {"heads", shape.kv_heads * 3},
                     {"kv_heads", shape.kv_heads},
                     {"head_dim", kHeadDim},
                     {"max_positions", 2048},
                     {"weights", "bf16"},
                     {"kv_bytes_per_token", shape.layers * shape.kv_heads * kHeadDim * 4},
                     {"position_encoding", shape.rope ? "rope" : "learned"}};
  report["sets"] = Json::array();
  for (std::size_t set = 0; set < kSets.size(); ++set)
    report["sets"].push_back({{"name", kSets[set]},
                              {"prompts", 8},
                              {"tokens", kSetPages[set] * 16 + 61},
                              {"pages", kSetPages[set]}});
  report["prompts"] = prompts_json();
  const int64_t dense = int64_t{kPages} * kPageBytes * shape.layers * shape.kv_heads * 2;
  report["cache"] = {
      {"page_tokens", kPageTokens},
      {"page_bytes", kPageBytes},
      {"key_basis", shape.rope ? "rotated" : "plain"},
      {"values", dense / 2},
      {"dense_f16_bytes", dense},
      {"fullest_tokens", int64_t{kPages} * kPageTokens},
      {"fullest_dense_f16_bytes", dense},
      {"ledger",
       {{"payload", dense},
        {"scales", 0},
        {"side", 0},
        {"tables", 36480},
        {"slack", 81920},
        {"workspace", 65536},
        {"peak", dense + 200000},
        {"held", dense + 36480 + 81920}}},
      {"compression", rounded(static_cast<double>(dense) / static_cast<double>(dense + 118400))}};
  report["timing"] = {{"load_s", 0.8},
                      {"prefill_s", 21.5},
                      {"prefill_tokens", 18240},
                      {"prefill_tokens_per_s", 848.4},
                      {"decode_s", 9.2},
                      {"decode_tokens", 384},
                      {"decode_tokens_per_s", 41.7},
                      {"analysis_s", 24.1},
                      {"pairs", int64_t{649230} * shape.layers * 5},
                      {"pairs_per_s", 1.1e6}};
}

}  // namespace

nlohmann::ordered_json example_report(const ExampleShape& shape) {
  Json report;
  add_run(report, shape);
  report["definitions"] = {
      {"cosine", "x·y / (‖x‖ ‖y‖) of two pages as vectors; 1 for the same direction."},
      {"cosine_centered",
       "Cosine after each channel's mean is removed, so that a large common offset does not count."},
      {"l2_similarity", "1 − ‖x − y‖ / max(‖x‖, ‖y‖); 1 for equal pages."},
      {"hamming", "Share of equal sign bits, each number against its channel's mean."},
      {"jaccard", "Overlap of the positions of the 25% largest magnitudes."},
      {"redundancy", "Share of pages with at least one partner over the threshold."},
      {"shuffled", "Control: pages rebuilt from a random permutation of all tokens of the set."},
      {"random", "Control: each page against one page drawn at random."}};
  report["thresholds"] = kThresholds;
  for (const std::string& metric : kMetrics)
    report["histogram_bins"][metric] = {
        {"low", metric == "hamming" || metric == "jaccard" ? 0 : -1}, {"high", 1}, {"bins", 100}};
  report["similarity"] = similarity(shape);
  report["adjacent_layers"] = adjacent_layers(shape);
  report["layer_matrix"] = layer_matrix(shape);
  report["heatmaps"] = heatmaps(shape);
  report["heatmap_sets"] = heatmap_sets();
  report["duplicates"] = duplicates(shape);
  report["clusters"] = clusters(shape);
  report["opportunity"] = opportunity(shape);
  report["growth"] = growth(shape);
  report["set_differences"] = set_differences(shape);
  report["norms"] = norms(shape);
  return report;
}

}  // namespace kva
