#include "reports/experiments/experiment_summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace kva {
namespace {

using Json = nlohmann::ordered_json;
using testing::ElementsAre;

struct Numbers {
  double held;
  double seen;
  double total_s;
  double tokens;
  double perplexity;
  double kl;
  double scored;
};

Json row(const std::string& strategy, const std::string& recipe, const std::string& sample,
         const Numbers& n) {
  return {
      {"trial", strategy + sample},
      {"experiment", "e"},
      {"mode", "generate"},
      {"model", {{"name", "m"}, {"identity", "h"}}},
      {"strategy", strategy},
      {"recipe", recipe},
      {"prompt_set", "general"},
      {"sample", sample},
      {"context_length", nullptr},
      {"repeat", 0},
      {"seed", 0},
      {"started", "2026-01-02T03:04:05Z"},
      {"status", "ok"},
      {"generated_tokens", n.tokens},
      {"timing", {{"prefill_s", 0.5}, {"total_s", n.total_s}, {"token_s", {0.1, 0.3}}}},
      {"steps", {{"tokens", {1, n.seen}}, {"cache_tokens", {1, n.seen / 2}}, {"bytes", {1, n.held}}}},
      {"ledger",
       {{"payload", n.held - 10}, {"scales", 4}, {"side", 3}, {"tables", 2}, {"slack", 1}, {"peak", n.held}}},
      {"quality",
       {{"perplexity", n.perplexity},
        {"perplexity_base", 2.0},
        {"kl_mean", n.kl},
        {"top1_agreement", 0.5},
        {"rouge_l", 0.25},
        {"edit_distance", 3},
        {"scored_tokens", n.scored}}}};
}

std::vector<const Json*> pointers(const std::vector<Json>& rows) {
  std::vector<const Json*> all;
  for (const Json& one : rows) all.push_back(&one);
  return all;
}

std::vector<Json> example() {
  return {row("Baseline", "dense(f16)", "a", {100, 50, 2, 10, 2, 0, 10}),
          row("evict", "evict", "a", {40, 40, 1, 10, 4, 0.5, 10}),
          row("Baseline", "dense(f16)", "b", {200, 100, 6, 10, 2, 0, 30}),
          row("evict", "evict", "b", {120, 80, 3, 10, 8, 0.1, 30})};
}

TEST(ExperimentSummary, MeansByHand) {
  const std::vector<Json> rows = example();
  const auto summaries = summarize_rows(pointers(rows), false);
  ASSERT_EQ(summaries.size(), 2u);
  const StrategySummary& evict = summaries[1];
  EXPECT_EQ(evict.key.strategy, "evict");
  EXPECT_EQ(evict.trials, 2);
  EXPECT_DOUBLE_EQ(evict.cache_bytes, 80);
  EXPECT_DOUBLE_EQ(evict.token_s, 0.2);
  EXPECT_DOUBLE_EQ(evict.tokens_per_s, 20 / 4.0);
  EXPECT_DOUBLE_EQ(evict.total_s, 2);
  // Bytes a token: 40/40 + 120/80 of Baseline's 100/50 + 200/100.
  EXPECT_DOUBLE_EQ(evict.cache_ratio, 2.5 / 4);
  EXPECT_DOUBLE_EQ(evict.speed_ratio, 2);
  // Tokens, not trials, weigh: 10 at 4 and 30 at 8.
  EXPECT_DOUBLE_EQ(evict.perplexity, std::exp((10 * std::log(4) + 30 * std::log(8)) / 40));
  EXPECT_DOUBLE_EQ(evict.kl_mean, (10 * 0.5 + 30 * 0.1) / 40);
  EXPECT_DOUBLE_EQ(evict.rouge_l, 0.25);
  EXPECT_TRUE(std::isnan(evict.passkey));
}

TEST(ExperimentSummary, FailedTrialsCountAsFailedOnly) {
  std::vector<Json> rows = example();
  rows[3] = {
      {"trial", "x"}, {"strategy", "evict"}, {"recipe", "evict"}, {"status", "failed"}, {"error", "no"}};
  const auto summaries = summarize_rows(pointers(rows), false);
  EXPECT_EQ(summaries[1].trials, 2);
  EXPECT_EQ(summaries[1].failed, 1);
  EXPECT_DOUBLE_EQ(summaries[1].cache_bytes, 40);
  rows[1] = rows[3];
  EXPECT_TRUE(std::isnan(summarize_rows(pointers(rows), false)[1].kl_mean));
}

TEST(ExperimentSummary, ComparesWithBaseline) {
  const std::vector<Json> rows = example();
  const Json json = experiment_summary_json(pointers(rows), {{"commit", "c"}});
  EXPECT_EQ(json.at("experiment_summary").at("total_experiments"), 4);
  EXPECT_EQ(json.at("experiment_summary").at("successful_experiments"), 4);
  EXPECT_EQ(json.at("experiment_summary").at("total_duration_seconds"), 12);
  EXPECT_EQ(json.at("mode_summaries").at("generate").at("average_latency_ms"), 3000);
  const Json& evict = json.at("comparative_analysis").at("evict");
  EXPECT_EQ(evict.at("latency_speedup_percent"), 50);
  EXPECT_EQ(evict.at("throughput_speedup_percent"), 100);
  EXPECT_EQ(evict.at("cache_bytes_saved_percent"), 37.5);
  EXPECT_EQ(evict.at("by_set").at(0).at("prompt_set"), "general");
  EXPECT_FALSE(json.at("comparative_analysis").contains("Baseline"));
}

TEST(ExperimentSummary, JudgesAreNamedWithTheirMeanScores) {
  std::vector<Json> rows = {row("Baseline", "dense(f16)", "0", {100, 10, 1, 5, 2, 0, 5}),
                            row("Random(keep=0.5)", "random", "0", {50, 10, 1, 5, 3, 0.5, 5}),
                            row("Random(keep=0.5)", "random", "1", {50, 10, 1, 5, 3, 0.5, 5})};
  EXPECT_FALSE(
      experiment_summary_json(pointers(rows), Json::object())["experiment_summary"].contains("judges"));
  rows[1]["judge"] = {{"model", "grader"}, {"rubric", "1"}, {"score", 4}, {"reason", "r"}};
  rows[2]["judge"] = {{"model", "grader"}, {"rubric", "1"}, {"score", 7}, {"reason", "r"}};
  const Json summary = experiment_summary_json(pointers(rows), Json::object());
  EXPECT_EQ(summary["experiment_summary"]["judges"], Json({{{"model", "grader"}, {"rubric", "1"}}}));
  EXPECT_EQ(summary["comparative_analysis"]["Random(keep=0.5)"]["judge_score"], 5.5);
  EXPECT_TRUE(strategy_json(pointers(rows), "Baseline")["summary"]["judge_score"].is_null());
}

// Rows that somebody edited: what is no number counts as none.
TEST(ExperimentSummary, MembersOfAnotherTypeSayNothing) {
  std::vector<Json> rows = {row("Baseline", "dense(f16)", "0", {100, 10, 1, 5, 2, 0, 5}),
                            row("Random(keep=0.5)", "random", "0", {50, 10, 1, 5, 3, 0.5, 5})};
  Json& edited = rows[1];
  edited["generated_tokens"] = nullptr;
  edited["model"] = 7;
  edited["timing"] = {{"token_s", 3}, {"total_s", "x"}};
  edited["passkey"] = {{"exact", 1}};
  edited["heads"] = Json::array();
  edited["layers"] = "x";
  edited["judge"] = Json::array();
  const StrategySummary summary = summarize_rows(pointers(rows), false).at(1);
  EXPECT_EQ(summary.trials, 1);
  EXPECT_EQ(summary.kl_mean, 0.5);
  EXPECT_TRUE(std::isnan(summary.tokens_per_s));
  EXPECT_TRUE(std::isnan(summary.judge_score));
  EXPECT_EQ(strategy_layers_csv(pointers(rows), "Random(keep=0.5)"), "");
  (void)experiment_summary_json(pointers(rows), Json::object());
}

TEST(ExperimentSummary, FilesAreNamedAfterStrategies) {
  const std::vector<Json> rows = example();
  EXPECT_THAT(strategy_files(pointers(rows), {"Baseline", "evict"}),
              ElementsAre("Baseline_20260102_030405.json", "evict_20260102_030405.json"));
  EXPECT_THAT(strategy_files({}, {"quant(bits=4)", "quant(bits=8)", "a/../b"}),
              ElementsAre("quant_bits=4_.json", "quant_bits=8_.json", "a_.._b_.json"));
  const auto clash = strategy_files({}, {"quant(4)", "quant[4]"});
  EXPECT_NE(clash[0], clash[1]);
}

}  // namespace
}  // namespace kva
