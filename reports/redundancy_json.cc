#include "reports/redundancy_json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "reports/json_number.h"
#include "reports/redundancy_definitions.h"
#include "reports/report_view.h"
#include "reports/text_format.h"

namespace kva {
namespace {

Json rounded_list(const std::vector<double>& values) {
  Json list = Json::array();
  for (const double value : values) list.push_back(rounded(value));
  return list;
}

Json by_threshold(const std::vector<double>& shares, const std::vector<double>& thresholds) {
  Json object = Json::object();
  for (std::size_t t = 0; t < shares.size(); ++t) object[threshold_key(thresholds[t])] = rounded(shares[t]);
  return object;
}

Json basis_json(SideBasis side) {
  return side == SideBasis::kValue ? Json(nullptr) : Json(std::string(basis_name(side)));
}

// "layer", then what says which pages are meant.
Json where(int layer, SideBasis side) {
  return {{"layer", layer}, {"side", std::string(side_name(side))}, {"basis", basis_json(side)}};
}

void add_scope(Json& row, int head) {
  row["scope"] = head == kJoinedHeads ? "layer" : "head";
  row["head"] = head == kJoinedHeads ? Json(nullptr) : Json(head);
}

enum class Parts { kPlain, kWithRedundancy, kWithHistogram };

void add_summary(Json& row, const PairSummary& summary, const std::vector<double>& thresholds, Parts parts) {
  row["pairs"] = summary.pairs;
  row["mean"] = rounded(summary.mean);
  row["std"] = rounded(summary.std);
  Json percentiles = Json::object();
  for (std::size_t k = 0; k < kPercentiles.size(); ++k)
    percentiles[std::to_string(kPercentiles[k])] = rounded(summary.percentiles[k]);
  row["percentiles"] = std::move(percentiles);
  row["share_over"] = by_threshold(summary.share_over, thresholds);
  if (parts == Parts::kPlain) return;
  row["redundancy"] = by_threshold(summary.redundancy, thresholds);
  if (parts == Parts::kWithHistogram)
    row["histogram"] = summary.histogram.empty() ? Json(nullptr) : Json(summary.histogram);
}

Json summary_json(const PairSummary& summary, const std::vector<double>& thresholds, Parts parts) {
  Json object = Json::object();
  add_summary(object, summary, thresholds, parts);
  return object;
}

Json similarity_json(const RedundancyResult& result) {
  const std::vector<double>& thresholds = result.options.thresholds;
  Json rows = Json::array();
  for (const SimilarityRow& row : result.similarity) {
    Json json = where(row.layer, row.side);
    add_scope(json, row.head);
    json["metric"] = std::string(metric_name(row.metric));
    json["group"] = row.group;
    json["pages"] = row.pages;
    add_summary(json, row.real, thresholds, Parts::kWithHistogram);
    if (row.metric == Metric::kL2) json["l2_mean"] = rounded(row.l2_mean);
    json["controls"] = {{"random", summary_json(row.random, thresholds, Parts::kWithRedundancy)},
                        {"shuffled", summary_json(row.shuffled, thresholds, Parts::kWithHistogram)}};
    rows.push_back(std::move(json));
  }
  return rows;
}

Json adjacent_json(const RedundancyResult& result) {
  const std::vector<double>& thresholds = result.options.thresholds;
  Json rows = Json::array();
  for (const AdjacentRow& row : result.adjacent_layers) {
    Json json = {{"layer", row.layer},
                 {"next", row.layer + 1},
                 {"side", std::string(side_name(row.side))},
                 {"basis", basis_json(row.side)}};
    add_scope(json, row.head);
    json["metric"] = std::string(metric_name(row.metric));
    add_summary(json, row.real, thresholds, Parts::kPlain);
    json["controls"] = {{"random", summary_json(row.random, thresholds, Parts::kPlain)},
                        {"shuffled", summary_json(row.shuffled, thresholds, Parts::kPlain)}};
    rows.push_back(std::move(json));
  }
  return rows;
}

Json layer_matrix_json(const RedundancyResult& result) {
  Json rows = Json::array();
  const std::size_t layers = static_cast<std::size_t>(result.layers);
  for (const LayerMatrix& matrix : result.layer_matrix) {
    Json values = Json::array();
    for (std::size_t a = 0; a < layers; ++a) {
      const auto first = matrix.values.begin() + static_cast<std::ptrdiff_t>(a * layers);
      values.push_back(rounded_list({first, first + static_cast<std::ptrdiff_t>(layers)}));
    }
    rows.push_back({{"side", std::string(side_name(matrix.side))},
                    {"basis", basis_json(matrix.side)},
                    {"metric", "cosine_centered"},
                    {"values", std::move(values)}});
  }
  return rows;
}

Json heatmaps_json(const RedundancyResult& result) {
  Json rows = Json::array();
  for (const Heatmap& map : result.heatmaps) {
    Json json = where(map.layer, map.side);
    json["metric"] = "cosine_centered";
    json["bins"] = map.bins;
    json["scale"] = rounded(1.0 / 127.0);
    json["data"] = base64_encode({reinterpret_cast<const char*>(map.data.data()), map.data.size()});
    rows.push_back(std::move(json));
  }
  return rows;
}

Json heatmap_sets_json(const RedundancyResult& result) {
  Json rows = Json::array();
  for (const HeatmapSet& set : result.heatmap_sets)
    rows.push_back({{"set", set.set}, {"first", rounded(set.first)}, {"last", rounded(set.last)}});
  return rows;
}

Json duplicates_json(const RedundancyResult& result) {
  Json rows = Json::array();
  for (const DuplicateRow& row : result.duplicates)
    rows.push_back({{"layer", row.layer},
                    {"side", std::string(side_name(row.side))},
                    {"pages", row.pages},
                    {"unique", row.unique},
                    {"duplicates", row.duplicates},
                    {"bytes", row.bytes},
                    {"shuffled_duplicates", row.shuffled_duplicates}});
  return rows;
}

Json clusters_json(const RedundancyResult& result) {
  Json rows = Json::array();
  for (const ClusterRow& row : result.clusters) {
    Json json = where(row.layer, row.side);
    json["k"] = row.k;
    json["rule"] = row.rule;
    json["iterations"] = row.iterations;
    json["inertia"] = rounded(row.inertia);
    json["inertia_shuffled"] = rounded(row.inertia_shuffled);
    json["explained"] = rounded(row.explained);
    json["explained_shuffled"] = rounded(row.explained_shuffled);
    json["sizes"] = row.sizes;
    json["empty"] = row.empty;
    json["distance"] = {{"mean", rounded(row.distance_mean)},
                        {"50", rounded(row.distance_median)},
                        {"95", rounded(row.distance_95)},
                        {"max", rounded(row.distance_max)}};
    json["sharing"] = {{"dense_bytes", row.dense_bytes},   {"centroid_bytes", row.centroid_bytes},
                       {"index_bytes", row.index_bytes},   {"held_bytes", row.held_bytes()},
                       {"freed_bytes", row.freed_bytes()}, {"relative_error", rounded(row.relative_error)}};
    rows.push_back(std::move(json));
  }
  return rows;
}

Json opportunity_json(const RedundancyResult& result) {
  Json rows = Json::array();
  for (const OpportunityRow& row : result.opportunity) {
    Json json = where(row.layer, row.side);
    json["metric"] = std::string(metric_name(row.metric));
    json["threshold"] = row.threshold;
    json["pages"] = row.pages;
    json["freed_pages"] = row.freed_pages;
    json["freed_bytes"] = row.freed_bytes;
    json["dense_bytes"] = row.dense_bytes;
    json["share"] = rounded(static_cast<double>(row.freed_pages) / static_cast<double>(row.pages));
    json["shuffled_freed_pages"] = row.shuffled_freed_pages;
    rows.push_back(std::move(json));
  }
  return rows;
}

Json growth_json(const RedundancyResult& result) {
  Json rows = Json::array();
  for (const GrowthRow& row : result.growth)
    rows.push_back({{"set", row.set},
                    {"side", std::string(side_name(row.side))},
                    {"basis", basis_json(row.side)},
                    {"metric", "cosine_centered"},
                    {"threshold", row.threshold},
                    {"context_tokens", row.context_tokens},
                    {"redundancy", rounded_list(row.redundancy)},
                    {"shuffled", rounded_list(row.shuffled)}});
  return rows;
}

Json set_differences_json(const RedundancyResult& result) {
  Json rows = Json::array();
  for (const SetDifferenceRow& row : result.set_differences)
    rows.push_back({{"a", row.a},
                    {"b", row.b},
                    {"side", std::string(side_name(row.side))},
                    {"basis", basis_json(row.side)},
                    {"metric", std::string(metric_name(row.metric))},
                    {"statistic", row.statistic},
                    {"difference", rounded(row.difference)},
                    {"low", rounded(row.low)},
                    {"high", rounded(row.high)},
                    {"verdict", row.verdict},
                    {"prompts_a", row.prompts_a},
                    {"prompts_b", row.prompts_b}});
  return rows;
}

Json norms_json(const RedundancyResult& result) {
  Json rows = Json::array();
  for (const NormRow& row : result.norms)
    rows.push_back({{"layer", row.layer},
                    {"k_norm", rounded(row.k_norm)},
                    {"v_norm", rounded(row.v_norm)},
                    {"ratio", row.v_norm > 0.0 ? rounded(row.k_norm / row.v_norm) : Json(nullptr)},
                    {"k_outlier_channels", row.k_outlier_channels},
                    {"v_outlier_channels", row.v_outlier_channels}});
  return rows;
}

Json histogram_bins_json() {
  Json bins = Json::object();
  for (int m = 0; m < kMetrics; ++m) {
    const Metric metric = static_cast<Metric>(m);
    bins[std::string(metric_name(metric))] = {
        {"low", static_cast<int>(metric_low(metric))}, {"high", 1}, {"bins", kReportBins}};
  }
  return bins;
}

Json products_json(const RedundancyResult& result) {
  Json error = nullptr;
  if (result.products != DType::kF32)
    error = {{"cosine", rounded(result.product_error.cosine)},
             {"cosine_centered", rounded(result.product_error.centred)},
             {"l2_similarity", rounded(result.product_error.l2)}};
  return {{"dtype", std::string(dtype_name(result.products))}, {"error", std::move(error)}};
}

}  // namespace

Json to_json(const RedundancyResult& result) {
  Json definitions = Json::object();
  for (const Definition& definition : redundancy_definitions(result.options))
    definitions[definition.term] = definition.text;
  Json json = Json::object();
  json["definitions"] = std::move(definitions);
  json["thresholds"] = result.options.thresholds;
  json["histogram_bins"] = histogram_bins_json();
  json["products"] = products_json(result);
  json["similarity"] = similarity_json(result);
  json["adjacent_layers"] = adjacent_json(result);
  json["layer_matrix"] = layer_matrix_json(result);
  json["heatmaps"] = heatmaps_json(result);
  json["heatmap_sets"] = heatmap_sets_json(result);
  json["duplicates"] = duplicates_json(result);
  json["clusters"] = clusters_json(result);
  json["opportunity"] = opportunity_json(result);
  json["growth"] = growth_json(result);
  json["set_differences"] = set_differences_json(result);
  json["norms"] = norms_json(result);
  return json;
}

std::string partners_csv(const RedundancyResult& result) {
  fmt::memory_buffer text;
  auto out = fmt::appender(text);
  fmt::format_to(out, "layer,side,basis,page,rank,partner,similarity\n");
  const int64_t top = result.options.top_partners;
  for (const PartnerTable& table : result.partners)
    for (int64_t page = 0; page < result.pages; ++page)
      for (int64_t rank = 0; rank < top; ++rank) {
        const Partner& partner = table.partners[static_cast<std::size_t>(page * top + rank)];
        if (partner.page < 0) break;
        fmt::format_to(out, "{},{},{},{},{},{},{:.6g}\n", table.layer, side_name(table.side),
                       basis_name(table.side), page, rank + 1, partner.page, partner.similarity);
      }
  return fmt::to_string(text);
}

}  // namespace kva
