#include "reports/ab_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "reports/capture_run.h"
#include "reports/codec_json.h"
#include "reports/json_number.h"
#include "reports/passkey_json.h"
#include "reports/recipe_family.h"

namespace kva {
namespace {

using Json = nlohmann::ordered_json;

const Candidate& row_of(const AbFacts& facts, std::size_t row) {
  return row == 0 ? facts.evaluation.baseline : facts.evaluation.candidates[row - 1];
}

Json bounds(const Estimate& estimate) { return {rounded(estimate.low), rounded(estimate.high)}; }

Json estimate_json(const Estimate& estimate) {
  return {
      {"value", rounded(estimate.value)}, {"low", rounded(estimate.low)}, {"high", rounded(estimate.high)}};
}

// Memory that the capacity of rows is stated for.
constexpr std::array<int64_t, 3> kBudgetBytes = {int64_t{1} << 30, int64_t{4} << 30, int64_t{8} << 30};

double ratio(double a, double b) { return b > 0 ? a / b : 0.0; }

// Means over the windows that were run to their end, as the ledger's.
Json layers_json(const AbFacts& facts, std::size_t index) {
  const std::vector<double>& bytes = facts.statistics.bytes[index].layers;
  Json layers = Json::array();
  for (std::size_t layer = 0; layer < bytes.size(); ++layer)
    layers.push_back({{"layer", layer}, {"bytes", rounded(bytes[layer], 9)}});
  return layers;
}

// Relative errors by layer; null where a layer holds nothing to compare.
Json layer_error_json(const std::vector<LayerError>& layers) {
  Json json = {{"k", Json::array()}, {"v", Json::array()}, {"missing", Json::array()}};
  for (const LayerError& layer : layers) {
    json["k"].push_back(rounded(layer.k()));
    json["v"].push_back(rounded(layer.v()));
    json["missing"].push_back(rounded(layer.missing_share()));
  }
  return json;
}

// What the measured ledger lets a budget hold. Side data (bases, codebooks) does not grow with the tokens and
// is charged to each sequence; everything else is taken to grow as it did up to the end of a window.
Json capacity_json(const RowBytes& bytes, int64_t max_positions) {
  const int64_t held = bytes.ledger.held();
  const double per_token =
      ratio(static_cast<double>(held - bytes.ledger.side), static_cast<double>(bytes.tokens));
  Json budgets = Json::array();
  for (const int64_t budget : kBudgetBytes) {
    const auto room = static_cast<double>(std::max<int64_t>(0, budget - bytes.ledger.side));
    const bool bounded = per_token > 0 && held > 0;
    const auto tokens = bounded ? static_cast<int64_t>(room / per_token) : 0;
    budgets.push_back({{"budget_bytes", budget},
                       {"tokens", bounded ? Json(tokens) : Json(nullptr)},
                       {"longest_context", bounded ? Json(std::min(tokens, max_positions)) : Json(nullptr)},
                       {"sequences", bounded ? Json(budget / held) : Json(nullptr)}});
  }
  return {{"bytes_per_token", rounded(per_token)},
          {"fixed_bytes", bytes.ledger.side},
          {"sequence_tokens", bytes.tokens},
          {"budgets", std::move(budgets)}};
}

// One row a window: its bytes at the last scored token, and means over what was scored of it.
Json windows_json(const Candidate& candidate) {
  Json windows = Json::array();
  auto score = candidate.scores.tokens.begin();
  for (std::size_t i = 0; i < candidate.windows.size(); ++i) {
    const WindowBytes& window = candidate.windows[i];
    const int64_t scored = candidate.scores.window_tokens[i];
    double nll = 0, nll_base = 0, kl = 0, same = 0;
    for (const auto end = score + scored; score != end; ++score) {
      nll += score->nll;
      nll_base += score->nll_base;
      kl += score->kl;
      same += score->same_top ? 1.0 : 0.0;
    }
    const auto tokens = static_cast<double>(scored);
    windows.push_back({{"tokens", window.tokens},
                       {"bytes_held", window.ledger.held()},
                       {"scored_tokens", scored},
                       {"perplexity", rounded(std::exp(nll / tokens))},
                       {"perplexity_base", rounded(std::exp(nll_base / tokens))},
                       {"kl_mean", rounded(kl / tokens)},
                       {"top1_agreement", rounded(same / tokens)}});
  }
  return windows;
}

void add_bytes(Json& row, const AbFacts& facts, std::size_t index) {
  const Candidate& candidate = row_of(facts, index);
  const RowBytes& bytes = facts.statistics.bytes[index];
  const int64_t held = bytes.ledger.held();
  const int64_t values = bytes.tokens * facts.token_values;
  const double values_over_time = candidate.tokens_over_time * static_cast<double>(facts.token_values);
  row["tokens_seen"] = bytes.tokens;
  row["values"] = values;
  row["dense_f16_bytes"] = 2 * values;
  row["bytes_held"] = held;
  row["bits_per_value"] = rounded(ratio(8.0 * static_cast<double>(held), static_cast<double>(values)));
  row["compression"] = rounded(ratio(2.0 * static_cast<double>(values), static_cast<double>(held)));
  row["bits_per_value_over_time"] = rounded(ratio(8.0 * candidate.held_over_time, values_over_time));
  row["compression_over_time"] = rounded(ratio(2.0 * values_over_time, candidate.held_over_time));
  row["ledger"] = ledger_json(bytes.ledger);
  row["windows"] = windows_json(candidate);
  row["layers"] = layers_json(facts, index);
  row["layer_error"] = layer_error_json(candidate.layers);
  row["capacity"] = capacity_json(bytes, facts.max_positions);
}

void add_quality(Json& row, const QualitySummary& quality) {
  row["perplexity"] = rounded(quality.perplexity);
  row["perplexity_base"] = rounded(quality.perplexity_base);
  row["delta_perplexity"] = rounded(quality.delta_perplexity.value);
  row["kl_mean"] = rounded(quality.kl_mean.value);
  row["kl_median"] = rounded(quality.kl_median);
  row["kl_p99"] = rounded(quality.kl_p99);
  row["kl_p999"] = rounded(quality.kl_p999);
  row["kl_max"] = rounded(quality.kl_max);
  row["top1_agreement"] = rounded(quality.top1_agreement.value);
  row["delta_p_mean"] = rounded(quality.delta_p_mean);
  row["delta_p_rms"] = rounded(quality.delta_p_rms);
  Json percentiles = Json::object();
  for (std::size_t i = 0; i < quality.kDeltaPPercentiles.size(); ++i)
    percentiles[fmt::to_string(quality.kDeltaPPercentiles[i])] = rounded(quality.delta_p_percentiles[i]);
  row["delta_p_percentiles"] = std::move(percentiles);
  row["nonfinite_tokens"] = quality.nonfinite_tokens;
  row["intervals"] = {{"delta_perplexity", bounds(quality.delta_perplexity)},
                      {"kl_mean", bounds(quality.kl_mean)},
                      {"top1_agreement", bounds(quality.top1_agreement)}};
}

Json positions_json(const QualitySummary& quality) {
  Json bins = Json::array();
  for (const PositionBin& bin : quality.kl_by_position)
    bins.push_back({{"first", bin.first},
                    {"last", bin.last},
                    {"tokens", bin.tokens},
                    {"kl_mean", rounded(bin.kl_mean)}});
  return bins;
}

Json turns_json(const std::vector<QualitySummary>& turns) {
  Json rows = Json::array();
  for (std::size_t i = 0; i < turns.size(); ++i) {
    Json row = {{"turn", i}, {"tokens", turns[i].tokens}};
    add_quality(row, turns[i]);
    rows.push_back(std::move(row));
  }
  return rows;
}

void add_timing(Json& row, const DecodeTiming* timing) {
  row["prefill_tokens_per_s"] = timing ? rounded(timing->prefill_tokens_per_s) : Json(nullptr);
  row["decode_tokens_per_s"] = timing ? rounded(timing->decode_tokens_per_s) : Json(nullptr);
  if (!timing) {
    row["timing"] = nullptr;
    return;
  }
  row["timing"] = {{"context", timing->context},
                   {"decode_tokens", timing->decode_tokens},
                   {"chunk_tokens", timing->chunk_tokens},
                   {"runs", timing->runs},
                   {"first_token_ms", rounded(timing->first_token_ms)},
                   {"step_median_ms", rounded(timing->step_median_ms)},
                   {"step_p99_ms", rounded(timing->step_p99_ms)}};
}

void add_passkey(Json& row, const AbFacts& facts, std::size_t index) {
  const Estimate accuracy = facts.passkey ? passkey_accuracy(*facts.passkey, facts.passkey->rows[index])
                                          : Estimate{.value = std::numeric_limits<double>::quiet_NaN()};
  row["passkey_accuracy"] = rounded(accuracy.value);
  row["intervals"]["passkey_accuracy"] = bounds(accuracy);
}

std::string effect_of(const AbFacts& facts, std::size_t index) {
  if (index == 0) return "baseline";
  const Candidate& candidate = row_of(facts, index);
  if (candidate.bytes_differ) return candidate.logits_differ ? "bytes and logits" : "bytes";
  return candidate.logits_differ ? "logits" : kNoEffect;
}

// Blocks of the bootstrap's length within each window; the last of a window may be shorter.
std::vector<std::pair<std::size_t, std::size_t>> block_ranges(const ScoreSeries& series, int64_t tokens) {
  std::vector<std::pair<std::size_t, std::size_t>> ranges;
  int64_t first = 0;
  for (const int64_t of_window : series.window_tokens) {
    for (int64_t at = 0; at < of_window; at += tokens)
      ranges.emplace_back(first + at, first + std::min(at + tokens, of_window));
    first += of_window;
  }
  return ranges;
}

Json block_sums(const AbFacts& facts, const ScoreSeries& series, double (*value)(const TokenScore&)) {
  Json sums = Json::array();
  for (const auto& [first, last] : block_ranges(series, facts.statistics.bootstrap.block_tokens)) {
    double sum = 0;
    for (std::size_t i = first; i < last; ++i) sum += value(series.tokens[i]);
    sums.push_back(rounded(sum, 10));
  }
  return sums;
}

Json row_json(const AbFacts& facts, std::size_t index) {
  const Candidate& candidate = row_of(facts, index);
  const QualitySummary& quality = facts.statistics.rows[index];
  Json row;
  row["recipe"] = candidate.recipe;
  row["family"] = recipe_family(candidate.recipe);
  row["effect"] = effect_of(facts, index);
  row["tokens"] = quality.tokens;
  row["chunk_tokens"] = candidate.chunk_tokens;
  row["page_size"] = facts.options.page_tokens;
  row["weights"] = facts.weights;
  add_bytes(row, facts, index);
  add_quality(row, quality);
  add_passkey(row, facts, index);
  const auto& front = facts.statistics.front;
  row["on_front"] = std::find(front.begin(), front.end(), index) != front.end();
  row["codec"] = codec_json(candidate.stats);
  row["seconds"] = rounded(candidate.seconds);
  add_timing(row, facts.timing.empty() ? nullptr : &facts.timing[index]);
  row["kl_by_position"] = positions_json(quality);
  row["by_turn"] = turns_json(facts.statistics.turns[index]);
  row["block_sums"] = {
      {"nll", block_sums(facts, candidate.scores, [](const TokenScore& score) { return score.nll; })},
      {"kl", block_sums(facts, candidate.scores, [](const TokenScore& score) { return score.kl; })},
      {"same_top", block_sums(facts, candidate.scores,
                              [](const TokenScore& score) { return score.same_top ? 1.0 : 0.0; })}};
  return row;
}

Json blocks_json(const AbFacts& facts) {
  const ScoreSeries& series = facts.evaluation.baseline.scores;
  Json sizes = Json::array();
  for (const auto& [first, last] : block_ranges(series, facts.statistics.bootstrap.block_tokens))
    sizes.push_back(last - first);
  return {{"tokens", std::move(sizes)}, {"window_tokens", series.window_tokens}};
}

Json protocol_json(const AbFacts& facts) {
  const AbOptions& options = facts.options;
  const ScoreSeries& series = facts.evaluation.baseline.scores;
  return {{"context", options.windows.context},
          {"windows", series.window_tokens.size()},
          {"tokens", series.tokens.size()},
          {"chunk_tokens", options.windows.chunk},
          {"turns", options.windows.turns},
          {"page_size", options.page_tokens},
          {"weights", facts.weights},
          {"base", kBaseRecipe},
          {"baseline", kBaselineRecipe},
          {"block_tokens", facts.statistics.bootstrap.block_tokens},
          {"resamples", facts.statistics.bootstrap.resamples}};
}

Json noise_json(const AbFacts& facts) {
  Json rechunked = {{"name", "the base in longer steps"},
                    {"recipe", kBaseRecipe},
                    {"chunk_tokens", facts.evaluation.rechunked.chunk_tokens}};
  add_quality(rechunked, facts.statistics.rechunked);
  Json f16 = {{"name", "f16 pages against f32"},
              {"recipe", kBaselineRecipe},
              {"chunk_tokens", facts.options.windows.chunk}};
  add_quality(f16, facts.statistics.rows.front());
  return {std::move(rechunked), std::move(f16)};
}

Json differences_json(const AbFacts& facts) {
  Json rows = Json::array();
  for (const RowDifference& difference : facts.statistics.differences)
    rows.push_back({{"a", row_of(facts, difference.a).recipe},
                    {"b", row_of(facts, difference.b).recipe},
                    {"log_perplexity_ratio", estimate_json(difference.quality.log_perplexity_ratio)},
                    {"kl_mean", estimate_json(difference.quality.kl_mean)},
                    {"top1_agreement", estimate_json(difference.quality.top1_agreement)}});
  return rows;
}

Json against_bases_json(const AbFacts& facts) {
  Json rows = Json::array();
  for (const RowDifference& difference : facts.statistics.against_bases) {
    const Candidate& row = row_of(facts, difference.a);
    double merged = 0;
    for (const auto& [name, value] : row.stats.counters)
      if (name == "merge.merged_tokens") merged = value;
    rows.push_back({{"recipe", row.recipe},
                    {"base", row_of(facts, difference.b).recipe},
                    {"bytes_held", facts.statistics.bytes[difference.a].ledger.held()},
                    {"base_bytes_held", facts.statistics.bytes[difference.b].ledger.held()},
                    {"merged_tokens", static_cast<int64_t>(merged)},
                    {"log_perplexity_ratio", estimate_json(difference.quality.log_perplexity_ratio)},
                    {"kl_mean", estimate_json(difference.quality.kl_mean)},
                    {"top1_agreement", estimate_json(difference.quality.top1_agreement)}});
  }
  return rows;
}

Json equal_bytes_json(const AbFacts& facts) {
  Json rows = Json::array();
  for (const EqualBytesRow& row : facts.statistics.equal_bytes)
    rows.push_back({{"recipe", row_of(facts, row.row).recipe},
                    {"bytes_held", facts.statistics.bytes[row.row].ledger.held()},
                    {"curve", row.curve},
                    {"points", row.points},
                    {"log_perplexity_ratio", estimate_json(row.log_perplexity_ratio)},
                    {"kl_mean", estimate_json(row.kl_mean)}});
  return rows;
}

}  // namespace

Json ab_json(const AbFacts& facts) {
  Json json;
  json["protocol"] = protocol_json(facts);
  json["base"] = {{"recipe", kBaseRecipe},
                  {"perplexity", rounded(facts.statistics.rows.front().perplexity_base)},
                  {"seconds", rounded(facts.evaluation.base_seconds)}};
  json["blocks"] = blocks_json(facts);
  json["rows"] = Json::array();
  for (std::size_t i = 0; i < facts.statistics.rows.size(); ++i) json["rows"].push_back(row_json(facts, i));
  json["noise_floor"] = noise_json(facts);
  json["differences"] = differences_json(facts);
  json["equal_bytes"] = equal_bytes_json(facts);
  json["against_bases"] = against_bases_json(facts);
  json["passkey"] = facts.passkey ? passkey_json(*facts.passkey, facts.options.text_file) : Json(nullptr);
  return json;
}

}  // namespace kva
