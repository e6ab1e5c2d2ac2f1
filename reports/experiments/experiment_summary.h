// What the rows of a run come to, strategy by strategy.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <tuple>
#include <vector>

namespace kva {

// Rows of one strategy on one model and prompt set.
struct SummaryKey {
  std::string strategy;
  std::string model;
  std::string prompt_set;
  friend bool operator<(const SummaryKey& a, const SummaryKey& b) {
    return std::tie(a.strategy, a.model, a.prompt_set) < std::tie(b.strategy, b.model, b.prompt_set);
  }
  friend bool operator==(const SummaryKey&, const SummaryKey&) = default;
};

// Means over the rows that ended well; NaN where no row says.
struct StrategySummary {
  SummaryKey key;  // an empty field: over all of them
  std::string recipe;
  int64_t trials = 0;
  int64_t failed = 0;
  double prefill_s = 0;
  double first_token_s = 0;
  double total_s = 0;
  double token_s = 0;       // mean of all decoding steps
  double tokens_per_s = 0;  // generated tokens over the time of all
  double codec_s = 0;
  double cache_bytes = 0;      // held at the end
  double peak_bytes = 0;       // of the cache
  double cache_tokens = 0;     // at the end, mean of layers and heads
  double cache_ratio = 0;      // bytes held at the end over Baseline's of the same samples
  double speed_ratio = 0;      // Baseline's time of the same samples over its own
  double perplexity = 0;       // exp of the mean loss over all scored tokens
  double perplexity_base = 0;  // Baseline's on the same
  double kl_mean = 0;          // over all scored tokens
  double top1_agreement = 0;
  double rouge_l = 0;  // mean over trials
  double edit_distance = 0;
  double passkey = 0;      // share of exact answers
  double judge_score = 0;  // 1 to 10, mean over trials
};

// In the order in which the strategies first appear. By strategy alone, or by model and prompt set too.
std::vector<StrategySummary> summarize_rows(const std::vector<const nlohmann::ordered_json*>& rows,
                                            bool by_set);

// experiment_summary.json. `run` is what the run says of itself; its members come first in
// experiment_summary.
nlohmann::ordered_json experiment_summary_json(const std::vector<const nlohmann::ordered_json*>& rows,
                                               const nlohmann::ordered_json& run);

// <Strategy>_<timestamp>.json: a strategy's summary and its rows, without traces and texts.
nlohmann::ordered_json strategy_json(const std::vector<const nlohmann::ordered_json*>& rows,
                                     const std::string& strategy);

// Bytes of each layer at the end under Baseline, for as many tokens, and under the strategy, summed over the
// samples of its rows that tell heads apart (layer_bytes_csv() in reports/head_decisions.h); empty where none
// does.
std::string strategy_layers_csv(const std::vector<const nlohmann::ordered_json*>& rows,
                                const std::string& strategy);

// "Random_20260102_030405.json" for each strategy (as written), of its first row's time; strategies whose
// short names clash get their parameters too.
std::vector<std::string> strategy_files(const std::vector<const nlohmann::ordered_json*>& rows,
                                        const std::vector<std::string>& strategies);

// Strategies as written, in the order of the rows.
std::vector<std::string> strategies_of(const std::vector<const nlohmann::ordered_json*>& rows);

}  // namespace kva
