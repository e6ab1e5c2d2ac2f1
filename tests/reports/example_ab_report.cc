#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/reports/example_report.h"
#include "tests/reports/example_statistics.h"

namespace kva {

using namespace example;

namespace {

constexpr int64_t kWindowTokens = 512;
constexpr int64_t kScored = 512;  // in two windows
constexpr int kBlocks = 8;
constexpr double kBasePerplexity = 14.5;

struct Row {
  std::string recipe;
  std::string family;
  std::string effect;
  double bits;    // a value, everything counted
  double kl;      // NaN: nothing finite
  double change;  // of perplexity
  bool on_front = false;
};

Json maybe(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json quality(double kl, double change) {
  Json json;
  json["perplexity"] = maybe(kBasePerplexity * (1 + change));
  json["perplexity_base"] = kBasePerplexity;
  json["delta_perplexity"] = maybe(change);
  json["kl_mean"] = maybe(kl);
  json["kl_median"] = maybe(0.6 * kl);
  json["kl_p99"] = maybe(6 * kl);
  json["kl_p999"] = maybe(12 * kl);
  json["kl_max"] = maybe(15 * kl);
  json["top1_agreement"] = std::isfinite(kl) ? Json(std::exp(-kl)) : Json(nullptr);
  json["delta_p_mean"] = maybe(-0.1 * kl);
  json["delta_p_rms"] = maybe(0.2 * kl);
  json["delta_p_percentiles"] = {{"1", maybe(-kl)}, {"50", maybe(0.0)}, {"99", maybe(kl)}};
  json["nonfinite_tokens"] = std::isfinite(kl) ? 0 : kScored;
  json["intervals"] = {{"delta_perplexity", {maybe(change - 0.004), maybe(change + 0.004)}},
                       {"kl_mean", {maybe(0.8 * kl), maybe(1.2 * kl)}},
                       {"top1_agreement", {maybe(std::exp(-1.2 * kl)), maybe(std::exp(-0.8 * kl))}}};
  return json;
}

Json ledger(int64_t held) {
  const int64_t scales = held / 20, side = held / 40, tables = held / 100, slack = held / 50;
  return {{"payload", held - scales - side - tables - slack},
          {"scales", scales},
          {"side", side},
          {"tables", tables},
          {"slack", slack},
          {"workspace", 4096},
          {"peak", held + 8192},
          {"held", held}};
}

Json capacity(int64_t held, int64_t side) {
  const double per_token = static_cast<double>(held - side) / kWindowTokens;
  Json budgets = Json::array();
  for (const int64_t gib : {1, 4, 8}) {
    const int64_t budget = gib << 30;
    const auto tokens = static_cast<int64_t>(static_cast<double>(budget - side) / per_token);
    budgets.push_back({{"budget_bytes", budget},
                       {"tokens", tokens},
                       {"longest_context", std::min<int64_t>(tokens, 8192)},
                       {"sequences", budget / held}});
  }
  return {{"bytes_per_token", per_token},
          {"fixed_bytes", side},
          {"sequence_tokens", kWindowTokens},
          {"budgets", budgets}};
}

// Errors grow with the layer; keys' are half as large as values'.
Json layer_error(double kl, int layers) {
  Json json = {{"k", Json::array()}, {"v", Json::array()}, {"missing", Json::array()}};
  for (int layer = 0; layer < layers; ++layer) {
    const double error = std::sqrt(kl) * (1 + 0.1 * layer);
    json["k"].push_back(maybe(error / 2));
    json["v"].push_back(maybe(error));
    json["missing"].push_back(0.0);
  }
  return json;
}

void add_bytes(Json& json, double bits, double kl, int layers) {
  const int64_t values = kWindowTokens * layers * 2 * 2 * kHeadDim;
  const auto held = static_cast<int64_t>(bits * static_cast<double>(values) / 8);
  json["tokens_seen"] = kWindowTokens;
  json["values"] = values;
  json["dense_f16_bytes"] = 2 * values;
  json["bytes_held"] = held;
  json["bits_per_value"] = bits;
  json["compression"] = 16 / bits;
  json["bits_per_value_over_time"] = 1.05 * bits;
  json["compression_over_time"] = 16 / bits / 1.05;
  json["ledger"] = ledger(held);
  json["windows"] = Json::array();
  for (const double part : {0.8, 1.2})
    json["windows"].push_back({{"tokens", kWindowTokens},
                               {"bytes_held", held},
                               {"scored_tokens", kScored / 2},
                               {"perplexity", maybe(20 * (1 + part * kl))},
                               {"perplexity_base", 20},
                               {"kl_mean", maybe(part * kl)},
                               {"top1_agreement", maybe(1 - 0.3 * part * kl)}});
  json["layers"] = Json::array();
  for (int layer = 0; layer < layers; ++layer)
    json["layers"].push_back({{"layer", layer}, {"bytes", static_cast<double>(held) / layers}});
  json["layer_error"] = layer_error(kl, layers);
  json["capacity"] = capacity(held, json["ledger"]["side"].get<int64_t>());
}

Json timing(double bits) {
  return {{"context", kWindowTokens},     {"decode_tokens", 32},
          {"chunk_tokens", 64},           {"runs", 3},
          {"first_token_ms", 700 + bits}, {"step_median_ms", 20 + bits / 10},
          {"step_p99_ms", 25 + bits / 10}};
}

Json sums(double value) {
  return Json(std::vector<Json>(kBlocks, maybe(value * static_cast<double>(kScored) / kBlocks)));
}

Json row_json(const Row& row, int layers) {
  Json json = {{"recipe", row.recipe}, {"family", row.family}, {"effect", row.effect}, {"tokens", kScored},
               {"chunk_tokens", 64},   {"page_size", 64},      {"weights", "f32"}};
  add_bytes(json, row.bits, row.kl, layers);
  json.update(quality(row.kl, row.change));
  const double accuracy = std::isfinite(row.kl) ? std::exp(-row.kl) : 0.0;
  json["passkey_accuracy"] = accuracy;
  json["intervals"]["passkey_accuracy"] = {0.9 * accuracy, accuracy};
  json["on_front"] = row.on_front;
  json["codec"] = {{"plans", 16},
                   {"sides", 128},
                   {"values", 65536},
                   {"predicted_bytes", 4000},
                   {"freed_bytes", 4000},
                   {"seconds", 0.01},
                   {"gb_per_s", 1.5},
                   {"observe_seconds", 0.002},
                   {"counters", {{"merge.merged_tokens", 1234}}},
                   {"remarks", {"made up"}}};
  json["seconds"] = 2.5;
  json["prefill_tokens_per_s"] = 600 + row.bits;
  json["decode_tokens_per_s"] = 50 - row.bits;
  json["timing"] = timing(row.bits);
  json["kl_by_position"] = Json::array();
  for (int bin = 0; bin < 16; ++bin)
    json["kl_by_position"].push_back({{"first", 16 * bin},
                                      {"last", 16 * (bin + 1)},
                                      {"tokens", 32},
                                      {"kl_mean", maybe(row.kl * (1 + bin / 16.0))}});
  json["by_turn"] = Json::array();
  json["block_sums"] = {{"nll", sums(2.5)}, {"kl", sums(row.kl)}, {"same_top", sums(0.9)}};
  return json;
}

Json estimate(double value, double half) {
  return {{"value", maybe(value)}, {"low", maybe(value - half)}, {"high", maybe(value + half)}};
}

Json noise(const std::string& name, const std::string& recipe, int chunk, double kl) {
  Json json = {{"name", name}, {"recipe", recipe}, {"chunk_tokens", chunk}};
  json.update(quality(kl, 0));
  return json;
}

Json text(const std::string& file) {
  return {{"file", file},
          {"bytes", 100000},
          {"tokens", 25000},
          {"hash", "xxh3:1122334455667788"},
          {"token_hash", "xxh3:8877665544332211"}};
}

Json differences(const std::vector<Row>& rows) {
  Json json = Json::array();
  for (std::size_t a = 1; a < rows.size(); ++a)
    for (std::size_t b = 0; b < a; ++b)
      json.push_back({{"a", rows[a].recipe},
                      {"b", rows[b].recipe},
                      {"log_perplexity_ratio", estimate(rows[a].change - rows[b].change, 0.004)},
                      {"kl_mean", estimate(rows[a].kl - rows[b].kl, 0.01)},
                      {"top1_agreement", estimate(rows[b].kl - rows[a].kl, 0.01)}});
  return json;
}

Json equal_bytes(const Row& row, const std::string& curve, double difference) {
  return {{"recipe", row.recipe},
          {"bytes_held", 1000000},
          {"curve", curve},
          {"points", 3},
          {"log_perplexity_ratio", estimate(difference, 0.01)},
          {"kl_mean", estimate(difference, 0.01)}};
}

constexpr int kTrials = 20;
const std::vector<int> kLengths = {512, 1024, 2048};
const std::vector<double> kDepths = {0, 0.25, 0.5, 0.75, 1};

// The longest prompts are beyond everybody.
Json passkey_row(const std::string& recipe, double accuracy) {
  Json json = {{"recipe", recipe},
               {"trials", 200},
               {"exact", static_cast<int>(200 * accuracy)},
               {"accuracy", accuracy},
               {"low", 0.9 * accuracy},
               {"high", accuracy},
               {"digit_accuracy", 0.5 + accuracy / 2},
               {"seconds", 100.0}};
  json["cells"] = Json::array();
  for (const int length : kLengths)
    for (const double depth : kDepths) {
      const double of_cell = length > 1024 ? 0.1 * accuracy : accuracy * (1 - 0.1 * depth);
      json["cells"].push_back({{"length", length},
                               {"depth", depth},
                               {"trials", kTrials},
                               {"exact", static_cast<int>(kTrials * of_cell)},
                               {"accuracy", of_cell},
                               {"digit_accuracy", 0.5 + of_cell / 2}});
    }
  return json;
}

Json passkey(const std::vector<Row>& rows) {
  Json json = {{"lengths", kLengths},     {"depths", kDepths},
               {"trials", kTrials},       {"digits", 5},
               {"chunk_tokens", 64},      {"query_agnostic", true},
               {"informative_from", 0.8}, {"prompt", "<filler>"},
               {"filler", "example.txt"}, {"seconds", 1000.0},
               {"cells", Json::array()},  {"informative_cells", 10}};
  for (const int length : kLengths)
    for (const double depth : kDepths)
      json["cells"].push_back({{"length", length},
                               {"depth", depth},
                               {"mean_tokens", length - 1.5},
                               {"informative", length <= 1024}});
  json["base"] = passkey_row("dense(f32)", 1.0);
  json["rows"] = Json::array();
  for (const Row& row : rows)
    json["rows"].push_back(passkey_row(row.recipe, std::isfinite(row.kl) ? std::exp(-row.kl) : 0.0));
  return json;
}

const std::vector<Row>& rows_of() {
  static const std::vector<Row> kRows = {
      {"dense(f16)", "dense(f#)", "baseline", 16.4, 3e-7, 0.0, true},
      {"quant(k=8,v=8)", "quant(k=#,v=#)", "bytes and logits", 8.6, 0.0012, 0.001, true},
      {"quant(k=4,v=4)", "quant(k=#,v=#)", "bytes and logits", 4.7, 0.031, 0.016, false},
      {"quant(k=2,v=2)", "quant(k=#,v=#)", "bytes and logits", 2.8, 1.4, 2.1, true},
      {"quant(k=4,v=4,axes=kivi,group=page,outliers=0.01)", "quant(k=#,v=#,axes=kivi,group=page,outliers=#)",
       "bytes and logits", 4.69, 0.029, 0.0155, true},
      {"dedup(exact)", "dedup(exact)", "no effect", 16.4, 3e-7, 0.0, false},
      {"dense(f32)", "dense(f#)", "bytes and logits", 32.6, 0.0, 0.0, true},
      {"lowrank(rank=0.1)", "lowrank(rank=#)", "bytes and logits", 3.0, NAN, NAN, false}};
  return kRows;
}

}  // namespace

Json example_ab_report(int layers) {
  const Json frame = example_report({.layers = layers});
  Json report = {{"schema", "kvanalyze.report"}, {"schema_version", 1}, {"kind", "ab"}};
  for (const char* member : {"provenance", "model"}) report[member] = frame[member];
  report["definitions"] = {{"kl", "KL(base‖candidate), in nats."}, {"capacity", "What a budget holds."}};
  Json& ab = report["ab"];
  ab["text"] = text("example.txt");
  ab["calibration"] = text("");
  ab["protocol"] = {{"context", kWindowTokens}, {"windows", 2},         {"tokens", kScored},
                    {"chunk_tokens", 64},       {"turns", 1},           {"page_size", 64},
                    {"weights", "f32"},         {"base", "dense(f32)"}, {"baseline", "dense(f16)"},
                    {"block_tokens", 64},       {"resamples", 2000}};
  ab["base"] = {{"recipe", "dense(f32)"}, {"perplexity", kBasePerplexity}, {"seconds", 2.0}};
  ab["blocks"] = {{"tokens", std::vector<int64_t>(kBlocks, kScored / kBlocks)},
                  {"window_tokens", {kScored / 2, kScored / 2}}};
  ab["rows"] = Json::array();
  for (const Row& row : rows_of()) ab["rows"].push_back(row_json(row, layers));
  ab["noise_floor"] = {noise("the base in longer steps", "dense(f32)", 128, 5e-12),
                       noise("f16 pages against f32", "dense(f16)", 64, 3e-7)};
  ab["differences"] = differences(rows_of());
  ab["equal_bytes"] = {equal_bytes(rows_of()[4], "quant(k=#,v=#)", -0.002),
                       equal_bytes(rows_of()[2], "lowrank(rank=#)", -0.4),
                       equal_bytes(rows_of()[1], "dedup(exact)", 0.3)};
  ab["passkey"] = passkey(rows_of());
  ab["memory"] = {
      {"weight_bytes", 500000000}, {"decoder_workspace_bytes", 1000000}, {"peak_process_bytes", 900000000}};
  ab["timing"] = {{"load_s", 0.5}, {"evaluation_s", 30.0}, {"timing_s", 20.0}};
  return report;
}

Json example_judged_report() {
  Json report = example_report(), judged = example_ab_report();
  report["ab"] = judged["ab"];
  report["definitions"].update(judged["definitions"]);
  return report;
}

}  // namespace kva
