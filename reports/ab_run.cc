#include "reports/ab_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "reports/ab_definitions.h"
#include "reports/ab_json.h"
#include "reports/ab_statistics.h"
#include "reports/decode_timing.h"
#include "reports/evaluation.h"
#include "reports/json_number.h"
#include "reports/passkey_run.h"
#include "reports/recipe_family.h"
#include "reports/run_text.h"
#include "reports/text_format.h"
#include "runtime/clock.h"
#include "runtime/error.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"

namespace kva {
namespace {

using Json = nlohmann::ordered_json;

struct Text {
  std::vector<int32_t> ids;
  Json json;
};

// At most `limit` tokens of the text's front.
Text encode(const std::string& path, const std::string& text, const Tokenizer& tokenizer,
            std::size_t limit = std::numeric_limits<std::size_t>::max()) {
  Text encoded{tokenizer.encode(text), {}};
  encoded.ids.resize(std::min(encoded.ids.size(), limit));
  encoded.json = {{"file", path},
                  {"bytes", text.size()},
                  {"tokens", encoded.ids.size()},
                  {"hash", text_hash(text)},
                  {"token_hash", bytes_hash(std::as_bytes(std::span(encoded.ids)))}};
  return encoded;
}

// As canonical recipes, without the baseline, which has a row anyway.
std::vector<Recipe> candidates_of(const AbOptions& options) {
  std::vector<Recipe> recipes;
  for (const std::string& text : options.recipes) {
    Recipe recipe = Recipe::parse(text);
    const std::string canonical = recipe.text();
    if (canonical == kBaselineRecipe) continue;
    for (const Recipe& other : recipes)
      if (other.text() == canonical)
        throw InputError(fmt::format("--recipe: expected each recipe once, found {} twice", canonical));
    recipes.push_back(std::move(recipe));
  }
  return recipes;
}

Json options_of(const AbOptions& options) {
  return {{"model", options.model.model},
          {"weights", options.model.weights},
          {"device", options.model.device.name},
          {"text", options.text_file},
          {"recipes", options.recipes},
          {"calibration", options.calibration_file},
          {"context", options.windows.context},
          {"tokens", options.windows.tokens},
          {"chunk", options.windows.chunk},
          {"turns", options.windows.turns},
          {"page_size", options.page_tokens},
          {"timing", options.timing},
          {"timing_runs", options.timing_runs},
          {"passkey", options.passkey.run},
          {"passkey_depths", options.passkey.depths},
          {"passkey_lengths", options.passkey.lengths},
          {"passkey_trials", options.passkey.trials}};
}

std::vector<DecodeTiming> time_rows(const AbOptions& options, const std::vector<Recipe>& recipes,
                                    const Text& text, const CacheSetup& setup, Progress& progress) {
  if (!options.timing) return {};
  std::vector<Recipe> rows = {Recipe::parse(kBaselineRecipe)};
  rows.insert(rows.end(), recipes.begin(), recipes.end());
  return time_decoding(text.ids, rows, {.context = options.windows.context, .runs = options.timing_runs},
                       setup, progress);
}

void say_without_effect(const Json& report, Progress& progress) {
  for (const std::string& recipe : without_effect(report))
    progress.say(
        fmt::format("{}: no effect: neither a byte nor a logit differs from {}", recipe, kBaselineRecipe));
}

// Merging is judged beside the eviction underneath.
void say_without_base(const std::vector<Recipe>& recipes, Progress& progress) {
  for (const Recipe& recipe : recipes) {
    const auto base = eviction_base(recipe.text());
    const auto is_base = [&](const Recipe& other) { return other.text() == *base; };
    if (base && std::none_of(recipes.begin(), recipes.end(), is_base))
      progress.say(
          fmt::format("{}: --recipe '{}' would show what merging adds to dropping", recipe.text(), *base));
  }
}

// All that is known before a weight is read.
struct Inputs {
  std::vector<Recipe> recipes;
  FoundModel found;
  Text text;
  Text sample;
  std::vector<Window> windows;
  PasskeyOptions passkey_options;    // lengths settled
  std::vector<PasskeyCell> passkey;  // empty: not asked for

  int64_t fed_tokens() const {
    int64_t sum = 0;
    for (const Window& window : windows) sum += window.tokens;
    return sum;
  }
};

Inputs read_inputs(const AbOptions& options, Progress& progress) {
  std::vector<Recipe> recipes = candidates_of(options);
  say_without_base(recipes, progress);
  const std::string text = options.text ? *options.text : read_utf8_file(options.text_file);
  const std::string calibration = text_or_general(options.calibration_file);
  FoundModel found = open_model(options.model);
  Inputs inputs{std::move(recipes), std::move(found), {}, {}, {}, {}, {}};
  inputs.text = encode(options.text_file, text, inputs.found.tokenizer);
  inputs.sample = encode(options.calibration_file, calibration, inputs.found.tokenizer, kCalibrationTokens);
  inputs.windows =
      plan_windows(static_cast<int64_t>(inputs.text.ids.size()), options.windows, options.text_file.c_str());
  check_evaluation(inputs.found.config, inputs.windows, inputs.recipes, options.windows);
  if (options.passkey.run) {
    inputs.passkey_options = settled_passkey(options.passkey, inputs.found.config);
    inputs.passkey = plan_passkey(inputs.passkey_options, text, inputs.found.tokenizer, options.seed);
    progress.say(
        fmt::format("passkey: {} prompts make {} tokens for each of {} caches, where the evaluation has {}",
                    format_count(static_cast<double>(inputs.passkey.size()) * options.passkey.trials),
                    format_count(static_cast<double>(passkey_tokens(inputs.passkey))),
                    inputs.recipes.size() + 2, format_count(static_cast<double>(inputs.fed_tokens()))));
  }
  return inputs;
}

std::optional<PasskeyResult> retrieve(const AbOptions& options, Inputs& inputs, const Evaluation& evaluation,
                                      const CacheSetup& setup, Progress& progress) {
  if (inputs.passkey.empty()) return std::nullopt;
  double seconds = evaluation.base_seconds + evaluation.baseline.seconds;
  for (const Candidate& candidate : evaluation.candidates) seconds += candidate.seconds;
  seconds *= static_cast<double>(passkey_tokens(inputs.passkey)) / static_cast<double>(inputs.fed_tokens());
  progress.say(fmt::format("passkey: about {} at the evaluation's speed, and more for long lengths",
                           format_seconds(seconds)));
  return run_passkey(std::move(inputs.passkey), inputs.recipes, inputs.passkey_options, options.windows.chunk,
                     inputs.found.tokenizer, setup, progress);
}

// Model, options, texts: what there is without results.
Json frame_of(const AbOptions& options, const Inputs& inputs, const LoadedModel& loaded,
              const RunStamp& stamp, int threads) {
  std::string recipe = kBaselineRecipe;
  for (const Recipe& candidate : inputs.recipes) recipe += " vs " + candidate.text();
  Json report = report_frame("ab", stamp, threads, options.seed, one_line(recipe, 4000), options_of(options));
  report["model"] =
      model_json(inputs.found, loaded, inputs.found.config.kv_bytes_per_token(DType::kF16, DType::kF16));
  report["definitions"] = Json::object();
  for (const Definition& definition : ab_definitions(options.windows, options.passkey))
    report["definitions"][definition.term] = definition.text;
  report["ab"]["text"] = inputs.text.json;
  report["ab"]["calibration"] = inputs.sample.json;
  return report;
}

}  // namespace

Json run_ab(const AbOptions& options, const RunStamp& stamp, ThreadPool& pool, Progress& progress,
            std::vector<AttentionMaps>* attention) {
  const auto load_start = Clock::now();
  const auto say = [&progress](const std::string& line) { progress.say(line); };
  RunDevice device = open_device(options.model.device, say);
  Inputs inputs = read_inputs(options, progress);
  const auto needs = [&](const RunDevice& chosen) {
    check_recipe_runs(chosen, Recipe::parse(kBaselineRecipe), inputs.found.config, options.page_tokens);
    for (const Recipe& recipe : inputs.recipes)
      check_recipe_runs(chosen, recipe, inputs.found.config, options.page_tokens);
  };
  device = settled(std::move(device), options.model.device, needs, say);
  progress.stage("load", 0, "");
  LoadedModel loaded = load_model(inputs.found, options.model, device, pool, progress);
  const double load_s = seconds_since(load_start);

  const auto evaluation_start = Clock::now();
  Calibration calibration(loaded.decoder, inputs.sample.ids, options.windows.context, options.page_tokens,
                          pool, progress);
  const CacheSetup setup{.decoder = loaded.decoder,
                         .calibration = calibration,
                         .page_tokens = options.page_tokens,
                         .seed = options.seed,
                         .pool = pool,
                         .classes = std::make_shared<const TokenClasses>(inputs.found.tokenizer)};
  const Evaluation evaluation = evaluate(inputs.text.ids, inputs.windows, inputs.recipes, options.windows,
                                         setup, progress, attention != nullptr);
  if (attention) {
    *attention = {*evaluation.baseline.attention};
    for (const Candidate& candidate : evaluation.candidates) attention->push_back(*candidate.attention);
  }
  const double evaluation_s = seconds_since(evaluation_start);
  const AbStatistics statistics = ab_statistics(evaluation, options.windows, {.seed = options.seed});
  const auto timing_start = Clock::now();
  const auto timing = time_rows(options, inputs.recipes, inputs.text, setup, progress);
  const double timing_s = seconds_since(timing_start);
  const auto passkey = retrieve(options, inputs, evaluation, setup, progress);

  RunStamp ran = stamp;
  ran.device = device.name();
  Json report = frame_of(options, inputs, loaded, ran, pool.threads());
  Json& ab = report["ab"];
  ab.update(ab_json({.options = options,
                     .evaluation = evaluation,
                     .statistics = statistics,
                     .timing = timing,
                     .passkey = passkey ? &*passkey : nullptr,
                     .token_values = inputs.found.config.kv_bytes_per_token(DType::kF16, DType::kF16) / 2,
                     .max_positions = inputs.found.config.max_positions,
                     .weights = std::string(loaded.decoder.weight_form())}));
  ab["memory"] = {{"weight_bytes", loaded.decoder.weight_bytes()},
                  {"decoder_workspace_bytes", loaded.decoder.workspace_bytes()},
                  {"peak_process_bytes", peak_process_bytes()},
                  {"device", device_memory_json(device)}};
  ab["timing"] = {{"load_s", rounded(load_s)},
                  {"evaluation_s", rounded(evaluation_s)},
                  {"timing_s", options.timing ? rounded(timing_s) : Json(nullptr)}};
  say_without_effect(report, progress);
  return report;
}

std::vector<std::string> without_effect(const Json& report) {
  std::vector<std::string> recipes;
  for (const Json& row : report.at("ab").at("rows"))
    if (row.at("effect") == kNoEffect) recipes.push_back(row.at("recipe"));
  return recipes;
}

}  // namespace kva
