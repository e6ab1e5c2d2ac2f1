#include "reports/redundancy_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "tests/analyzer/redundancy/page_set_builder.h"

namespace kva {
namespace {

using Json = nlohmann::ordered_json;

RedundancyResult small_result() {
  PageSetSpec spec;
  spec.layers = 2;
  spec.kv_heads = 2;
  spec.rope = true;
  spec.sets = {{3, 4}, {5, 2}};
  ThreadPool pool(1);
  return analyze_redundancy(build_page_set(spec, textured_values(6)), {}, pool);
}

std::vector<std::string> keys_of(const Json& object) {
  std::vector<std::string> keys;
  for (const auto& item : object.items()) keys.push_back(item.key());
  return keys;
}

void expect_no_null_numbers(const Json& json) {
  if (json.is_number_float()) {
    EXPECT_TRUE(std::isfinite(json.get<double>()));
  }
  if (json.is_structured())
    for (const Json& child : json) expect_no_null_numbers(child);
}

TEST(RedundancyJson, WhatIsNoNumberIsNull) {
  RedundancyResult result = small_result();
  ASSERT_FALSE(result.norms.empty());
  result.norms[0].k_norm = std::numeric_limits<double>::quiet_NaN();
  result.norms[0].v_norm = 2.0;
  const Json row = to_json(result)["norms"][0];
  EXPECT_TRUE(row["k_norm"].is_null());
  EXPECT_EQ(row["v_norm"], 2.0);
  EXPECT_TRUE(row["ratio"].is_null());
}

TEST(RedundancyJson, HasTheSectionsAndKeysOfTheContract) {
  const Json json = to_json(small_result());
  EXPECT_THAT(keys_of(json), ::testing::ElementsAre("definitions", "thresholds", "histogram_bins", "products",
                                                    "similarity", "adjacent_layers", "layer_matrix",
                                                    "heatmaps", "heatmap_sets", "duplicates", "clusters",
                                                    "opportunity", "growth", "set_differences", "norms"));
  const Json& row = json["similarity"][0];
  EXPECT_THAT(keys_of(row), ::testing::ElementsAre("layer", "side", "basis", "scope", "head", "metric",
                                                   "group", "pages", "pairs", "mean", "std", "percentiles",
                                                   "share_over", "redundancy", "histogram", "controls"));
  EXPECT_THAT(keys_of(row["share_over"]), ::testing::ElementsAre("0.8", "0.9", "0.95", "0.99"));
  EXPECT_THAT(keys_of(row["percentiles"]), ::testing::ElementsAre("1", "5", "25", "50", "75", "95", "99"));
  EXPECT_THAT(keys_of(row["controls"]["random"]),
              ::testing::ElementsAre("pairs", "mean", "std", "percentiles", "share_over", "redundancy"));
  EXPECT_EQ(row["histogram"].size(), 100u);
  EXPECT_EQ(json["similarity"].size(), 2u * 3u * 5u * (3u + 2u));
  int with_distance = 0;
  for (const Json& each : json["similarity"]) {
    EXPECT_EQ(each.contains("l2_mean"), each["metric"] == "l2_similarity");
    with_distance += each.contains("l2_mean");
    EXPECT_EQ(each["basis"].is_null(), each["side"] == "V");
    EXPECT_EQ(each["histogram"].is_null(), each["scope"] == "head");
    EXPECT_EQ(each["head"].is_null(), each["scope"] == "layer");
  }
  EXPECT_GT(with_distance, 0);
  EXPECT_EQ(json["layer_matrix"].size(), 3u);
  EXPECT_EQ(json["layer_matrix"][0]["values"].size(), 2u);
  EXPECT_THAT(keys_of(json["clusters"][0]["sharing"]),
              ::testing::ElementsAre("dense_bytes", "centroid_bytes", "index_bytes", "held_bytes",
                                     "freed_bytes", "relative_error"));
  for (int m = 0; m < kMetrics; ++m) {
    const std::string name(metric_name(static_cast<Metric>(m)));
    EXPECT_TRUE(json["definitions"].contains(name)) << name;
    EXPECT_TRUE(json["histogram_bins"].contains(name)) << name;
  }
  expect_no_null_numbers(json);
}

int8_t heat_cell(const std::string& text, std::size_t at) {
  static const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  uint32_t group = 0;
  for (std::size_t d = 0; d < 4; ++d) {
    const auto digit = digits.find(text[at / 3 * 4 + d]);
    group = group << 6 | (digit == std::string::npos ? 0u : static_cast<uint32_t>(digit));
  }
  return static_cast<int8_t>(group >> (16 - 8 * (at % 3)) & 255u);
}

TEST(RedundancyJson, HeatmapsDecodeToTheCells) {
  const RedundancyResult result = small_result();
  const Json json = to_json(result);
  ASSERT_EQ(json["heatmaps"].size(), 4u) << "stored keys and values of two layers";
  for (std::size_t m = 0; m < 4; ++m) {
    const std::string text = json["heatmaps"][m]["data"];
    const std::vector<int8_t>& cells = result.heatmaps[m].data;
    ASSERT_EQ(text.size(), (cells.size() + 2) / 3 * 4);
    for (std::size_t k = 0; k < cells.size(); ++k) EXPECT_EQ(heat_cell(text, k), cells[k]);
    for (std::size_t p = 0; p < 14; ++p) EXPECT_EQ(cells[p * 14 + p], kHeatmapNoPair) << "a page with itself";
  }
}

TEST(RedundancyJson, PartnersHaveOneLineForEachRank) {
  const RedundancyResult result = small_result();
  const std::string text = partners_csv(result);
  EXPECT_TRUE(text.starts_with("layer,side,basis,page,rank,partner,similarity\n0,K,rotated,0,1,"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1 + 2 * 3 * 14 * 4);
  EXPECT_NE(text.find("\n1,V,,13,4,"), std::string::npos);
}

}  // namespace
}  // namespace kva
