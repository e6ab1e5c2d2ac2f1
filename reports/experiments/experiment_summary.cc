#include "reports/experiments/experiment_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "analyzer/estimate.h"
#include "reports/evaluation.h"
#include "reports/head_decisions.h"
#include "reports/json_number.h"
#include "runtime/io/hash.h"

namespace kva {
namespace {

using Json = nlohmann::ordered_json;
using Rows = std::vector<const Json*>;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t kNameBytes = 80;

// A number of a row, NaN where there is none.
double number(const Json& row, const char* member) {
  const auto value = row.find(member);
  return value == row.end() || !value->is_number() ? kNan : value->get<double>();
}

// The same of an object in it.
double number(const Json& row, const char* object, const char* member) {
  const auto part = row.find(object);
  return part == row.end() || !part->is_object() ? kNan : number(*part, member);
}

std::string text(const Json& row, const char* member) {
  const auto value = row.find(member);
  return value == row.end() || !value->is_string() ? "" : value->get<std::string>();
}

bool is_ok(const Json& row) { return text(row, "status") == "ok"; }

double held(const Json& row) {
  double sum = 0;
  for (const char* part : {"payload", "scales", "side", "tables", "slack"})
    sum += number(row, "ledger", part);
  return sum;
}

double last_of(const Json& row, const char* object, const char* member) {
  const auto part = row.find(object);
  if (part == row.end() || !part->is_object()) return kNan;
  const auto list = part->find(member);
  return list == part->end() || !list->is_array() || list->empty() || !list->back().is_number()
             ? kNan
             : list->back().get<double>();
}

// All that a strategy shares with Baseline on one sample.
std::string group_of(const Json& row) {
  Json group = Json::array();
  for (const char* member :
       {"experiment", "model", "prompt_set", "sample", "context_length", "repeat", "seed"})
    group.push_back(row.contains(member) ? row.at(member) : Json(nullptr));
  return group.dump();
}

std::map<std::string, const Json*> baselines(const Rows& rows) {
  std::map<std::string, const Json*> found;
  for (const Json* row : rows)
    if (is_ok(*row) && text(*row, "recipe") == kBaselineRecipe) found.emplace(group_of(*row), row);
  return found;
}

SummaryKey key_of(const Json& row, bool by_set) {
  SummaryKey key{.strategy = text(row, "strategy"), .model = {}, .prompt_set = {}};
  if (!by_set) return key;
  const auto model = row.find("model");
  if (model != row.end() && model->is_object()) key.model = text(*model, "name");
  key.prompt_set = text(row, "prompt_set");
  return key;
}

double mean(const std::vector<double>& values) { return values.empty() ? kNan : mean_of(values); }

// The finite ones of a number over rows.
template <typename Read>
std::vector<double> collect(const Rows& rows, Read read) {
  std::vector<double> values;
  for (const Json* row : rows)
    if (const double value = read(*row); std::isfinite(value)) values.push_back(value);
  return values;
}

std::vector<double> member_values(const Rows& rows, const char* object, const char* member) {
  return collect(rows, [&](const Json& row) { return number(row, object, member); });
}

void add_times(const Rows& rows, StrategySummary& summary) {
  summary.prefill_s = mean(member_values(rows, "timing", "prefill_s"));
  summary.first_token_s = mean(member_values(rows, "timing", "first_token_s"));
  summary.total_s = mean(member_values(rows, "timing", "total_s"));
  summary.codec_s = mean(member_values(rows, "timing", "codec_s"));
  double steps = 0, step_s = 0, tokens = 0, total_s = 0;
  for (const Json* row : rows) {
    const auto timing = row->find("timing");
    const double generated = number(*row, "generated_tokens");
    if (timing == row->end() || !timing->contains("token_s") || std::isnan(generated)) continue;
    for (const Json& seconds : timing->at("token_s"))
      if (seconds.is_number()) ++steps, step_s += seconds.get<double>();
    tokens += generated;
    total_s += number(*row, "timing", "total_s");
  }
  summary.token_s = steps > 0 ? step_s / steps : kNan;
  summary.tokens_per_s = total_s > 0 ? tokens / total_s : kNan;
}

// Weighed by the tokens that were scored: as if all were one text.
void add_quality(const Rows& rows, StrategySummary& summary) {
  double tokens = 0, loss = 0, base_loss = 0, kl = 0, top1 = 0;
  for (const Json* row : rows) {
    const double scored = number(*row, "quality", "scored_tokens");
    if (!(scored > 0)) continue;
    tokens += scored;
    loss += scored * std::log(number(*row, "quality", "perplexity"));
    base_loss += scored * std::log(number(*row, "quality", "perplexity_base"));
    kl += scored * number(*row, "quality", "kl_mean");
    top1 += scored * number(*row, "quality", "top1_agreement");
  }
  const auto of_tokens = [&](double sum) { return tokens > 0 ? sum / tokens : kNan; };
  summary.perplexity = std::exp(of_tokens(loss));
  summary.perplexity_base = std::exp(of_tokens(base_loss));
  summary.kl_mean = of_tokens(kl);
  summary.top1_agreement = of_tokens(top1);
  summary.rouge_l = mean(member_values(rows, "quality", "rouge_l"));
  summary.edit_distance = mean(member_values(rows, "quality", "edit_distance"));
  summary.judge_score = mean(member_values(rows, "judge", "score"));
  summary.passkey = mean(collect(rows, [](const Json& row) {
    const auto passkey = row.find("passkey");
    if (passkey == row.end() || !passkey->is_object() || !passkey->contains("exact")) return kNan;
    return passkey->at("exact") == true ? 1.0 : 0.0;
  }));
}

void add_bytes(const Rows& rows, const std::map<std::string, const Json*>& bases, StrategySummary& summary) {
  summary.cache_bytes = mean(collect(rows, held));
  summary.peak_bytes = mean(member_values(rows, "ledger", "peak"));
  summary.cache_tokens =
      mean(collect(rows, [](const Json& row) { return last_of(row, "steps", "cache_tokens"); }));
  double own = 0, base = 0, own_s = 0, base_s = 0;
  for (const Json* row : rows) {
    const auto found = bases.find(group_of(*row));
    if (found == bases.end()) continue;
    // Answers differ in length, and with them what the cache holds.
    own += held(*row) / last_of(*row, "steps", "tokens");
    base += held(*found->second) / last_of(*found->second, "steps", "tokens");
    const auto per_token = [](const Json& one) {
      return number(one, "timing", "total_s") / std::fmax(1.0, number(one, "generated_tokens"));
    };
    own_s += per_token(*row);
    base_s += per_token(*found->second);
  }
  summary.cache_ratio = base > 0 ? own / base : kNan;
  summary.speed_ratio = own_s > 0 ? base_s / own_s : kNan;
}

Json summary_json(const StrategySummary& summary) {
  return {{"recipe", summary.recipe},
          {"trials", summary.trials},
          {"failed", summary.failed},
          {"prefill_s", rounded(summary.prefill_s)},
          {"first_token_s", rounded(summary.first_token_s)},
          {"token_s", rounded(summary.token_s)},
          {"total_s", rounded(summary.total_s)},
          {"codec_s", rounded(summary.codec_s)},
          {"tokens_per_s", rounded(summary.tokens_per_s)},
          {"cache_bytes", rounded(summary.cache_bytes, 12)},
          {"cache_peak_bytes", rounded(summary.peak_bytes, 12)},
          {"cache_tokens", rounded(summary.cache_tokens)},
          {"perplexity", rounded(summary.perplexity)},
          {"perplexity_base", rounded(summary.perplexity_base)},
          {"kl_mean", rounded(summary.kl_mean)},
          {"top1_agreement", rounded(summary.top1_agreement)},
          {"rouge_l", rounded(summary.rouge_l)},
          {"edit_distance", rounded(summary.edit_distance)},
          {"passkey_accuracy", rounded(summary.passkey)},
          {"judge_score", rounded(summary.judge_score)}};
}

Json comparison_json(const StrategySummary& summary) {
  return {{"latency_speedup_percent", rounded(100 * (1 - 1 / summary.speed_ratio))},
          {"throughput_speedup_percent", rounded(100 * (summary.speed_ratio - 1))},
          {"cache_bytes_saved_percent", rounded(100 * (1 - summary.cache_ratio))},
          {"perplexity_change_percent", rounded(100 * (summary.perplexity / summary.perplexity_base - 1))},
          {"kl_mean", rounded(summary.kl_mean)},
          {"top1_agreement", rounded(summary.top1_agreement)},
          {"rouge_l", rounded(summary.rouge_l)},
          {"judge_score", rounded(summary.judge_score)}};
}

// Model and rubric of each judge that scored a row.
Json judges_of(const Rows& rows) {
  Json judges = Json::array();
  for (const Json* row : rows) {
    const auto judge = row->find("judge");
    if (judge == row->end() || !judge->is_object()) continue;
    const Json one = {{"model", text(*judge, "model")}, {"rubric", text(*judge, "rubric")}};
    if (std::find(judges.begin(), judges.end(), one) == judges.end()) judges.push_back(one);
  }
  return judges;
}

Json mode_json(const Rows& rows, const std::string& mode) {
  Rows of_mode;
  for (const Json* row : rows)
    if (text(*row, "mode") == mode) of_mode.push_back(row);
  Rows ok = of_mode;
  std::erase_if(ok, [](const Json* row) { return !is_ok(*row); });
  StrategySummary all;
  add_times(ok, all);
  Json json = {{"trials", of_mode.size()},
               {"failed", of_mode.size() - ok.size()},
               {"average_latency_ms", rounded(1e3 * all.total_s)},
               {"average_tokens_per_second", rounded(all.tokens_per_s)},
               {"strategies", Json::object()}};
  for (const StrategySummary& summary : summarize_rows(of_mode, false))
    json["strategies"][summary.key.strategy] = summary_json(summary);
  return json;
}

std::string file_name(std::string_view strategy, bool with_parameters) {
  if (!with_parameters) strategy = strategy.substr(0, strategy.find_first_of("(@|;: "));
  std::string name;
  for (const char c : strategy.substr(0, kNameBytes)) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '=' || c == '-';
    if (plain)
      name += c;
    else if (!name.empty() && name.back() != '_')
      name += '_';
  }
  while (!name.empty() && name.back() == '_') name.pop_back();
  return name.empty() ? "strategy" : name;
}

}  // namespace

std::vector<std::string> strategies_of(const Rows& rows) {
  std::vector<std::string> strategies;
  for (const Json* row : rows)
    if (std::find(strategies.begin(), strategies.end(), text(*row, "strategy")) == strategies.end())
      strategies.push_back(text(*row, "strategy"));
  return strategies;
}

std::vector<StrategySummary> summarize_rows(const Rows& rows, bool by_set) {
  const auto bases = baselines(rows);
  std::vector<SummaryKey> order;
  std::map<SummaryKey, Rows> groups;
  for (const Json* row : rows) {
    const SummaryKey key = key_of(*row, by_set);
    Rows& group = groups[key];
    if (group.empty()) order.push_back(key);
    group.push_back(row);
  }
  std::vector<StrategySummary> summaries;
  for (const SummaryKey& key : order) {
    Rows ok = groups[key];
    StrategySummary summary{.key = key, .recipe = text(*ok.front(), "recipe")};
    summary.trials = static_cast<int64_t>(ok.size());
    summary.failed = static_cast<int64_t>(std::erase_if(ok, [](const Json* row) { return !is_ok(*row); }));
    add_times(ok, summary);
    add_quality(ok, summary);
    add_bytes(ok, bases, summary);
    summaries.push_back(std::move(summary));
  }
  return summaries;
}

Json experiment_summary_json(const Rows& rows, const Json& run) {
  Json json;
  json["experiment_summary"] = run;
  Json& head = json["experiment_summary"];
  head["total_experiments"] = rows.size();
  head["successful_experiments"] =
      std::count_if(rows.begin(), rows.end(), [](const Json* row) { return is_ok(*row); });
  double seconds = 0;
  for (const Json* row : rows)
    if (const double total = number(*row, "timing", "total_s"); std::isfinite(total)) seconds += total;
  head["total_duration_seconds"] = rounded(seconds);
  if (const Json judges = judges_of(rows); !judges.empty()) head["judges"] = judges;
  json["mode_summaries"] = Json::object();
  for (const Json* row : rows)
    if (!json["mode_summaries"].contains(text(*row, "mode")))
      json["mode_summaries"][text(*row, "mode")] = mode_json(rows, text(*row, "mode"));
  json["comparative_analysis"] = Json::object();
  for (const StrategySummary& summary : summarize_rows(rows, false))
    if (summary.recipe != kBaselineRecipe)
      json["comparative_analysis"][summary.key.strategy] = comparison_json(summary);
  for (const StrategySummary& summary : summarize_rows(rows, true)) {
    if (summary.recipe == kBaselineRecipe) continue;
    Json part = {
        {"model", summary.key.model}, {"prompt_set", summary.key.prompt_set}, {"trials", summary.trials}};
    part.update(comparison_json(summary));
    json["comparative_analysis"][summary.key.strategy]["by_set"].push_back(std::move(part));
  }
  return json;
}

Json strategy_json(const Rows& rows, const std::string& strategy) {
  Json json = {{"strategy", strategy}};
  for (const StrategySummary& summary : summarize_rows(rows, false))
    if (summary.key.strategy == strategy) json["summary"] = summary_json(summary);
  json["by_set"] = Json::array();
  for (const StrategySummary& summary : summarize_rows(rows, true)) {
    if (summary.key.strategy != strategy) continue;
    Json part = {{"model", summary.key.model}, {"prompt_set", summary.key.prompt_set}};
    part.update(summary_json(summary));
    json["by_set"].push_back(std::move(part));
  }
  json["trials"] = Json::array();
  for (const Json* row : rows) {
    if (text(*row, "strategy") != strategy) continue;
    Json trial = *row;
    for (const char* bulky : {"steps", "layers", "turns"}) trial.erase(bulky);
    if (trial.contains("timing") && trial["timing"].is_object()) trial["timing"].erase("token_s");
    json["trials"].push_back(std::move(trial));
  }
  return json;
}

std::string strategy_layers_csv(const Rows& rows, const std::string& strategy) {
  const auto bases = baselines(rows);
  std::vector<double> raw, compressed;
  const auto add = [](const Json& row, double tokens, std::vector<double>& sums) {
    const auto layers = row.find("layers");
    if (layers == row.end() || !layers->is_object() || !layers->contains("bytes")) return;
    const Json& bytes = layers->at("bytes");
    if (!bytes.is_array()) return;
    sums.resize(bytes.size());
    for (std::size_t i = 0; i < sums.size(); ++i)
      sums[i] +=
          bytes[i].is_number() ? bytes[i].get<double>() / last_of(row, "steps", "tokens") * tokens : kNan;
  };
  for (const Json* row : rows) {
    const auto base = bases.find(group_of(*row));
    if (text(*row, "strategy") != strategy || !is_ok(*row) || !row->contains("heads") || base == bases.end())
      continue;
    // Answers differ in length: Baseline's bytes a token at the strategy's length.
    const double tokens = last_of(*row, "steps", "tokens");
    add(*row, tokens, compressed);
    add(*base->second, tokens, raw);
  }
  return raw.empty() || raw.size() != compressed.size() ? "" : layer_bytes_csv(raw, compressed);
}

std::vector<std::string> strategy_files(const Rows& rows, const std::vector<std::string>& strategies) {
  std::vector<std::string> files;
  for (const std::string& strategy : strategies) {
    const auto clashes = [&](bool with_parameters) {
      return std::count_if(strategies.begin(), strategies.end(), [&](const std::string& other) {
               return file_name(other, with_parameters) == file_name(strategy, with_parameters);
             }) > 1;
    };
    std::string name = file_name(strategy, clashes(false));
    if (clashes(false) && clashes(true)) {
      const std::string hash = text_hash(strategy);
      name += "_" + hash.substr(hash.find(':') + 1, 8);
    }
    std::string started;
    for (const Json* row : rows)
      if (text(*row, "strategy") == strategy && (started.empty() || text(*row, "started") < started))
        started = text(*row, "started");
    std::erase_if(started, [](char c) { return !std::isdigit(static_cast<unsigned char>(c)); });
    if (started.size() > 8) started.insert(8, "_");
    files.push_back(fmt::format("{}_{}.json", name, started));
  }
  return files;
}

}  // namespace kva
