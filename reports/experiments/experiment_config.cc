#include "reports/experiments/experiment_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <functional>

#include "compressors/spelling.h"
#include "reports/evaluation.h"
#include "reports/experiments/experiment_fields.h"
#include "runtime/error.h"

namespace kva {
namespace {

constexpr int64_t kMostTokens = 1 << 24;
constexpr int64_t kMostSamples = 1000000;
constexpr std::size_t kMostChoices = 4096;  // of a list
constexpr int kThresholdPageTokens = 16;    // where a kv_threshold is given
constexpr const char* kBaselineName = "Baseline";
constexpr std::array<std::string_view, 2> kModes = {"generate", "baseline"};

// A value or a list of them, as vectors.
template <typename Read>
auto one_or_many(const ConfigNode& node, Read read) {
  std::vector<decltype(read(node))> values;
  if (!node.is_list()) {
    values.push_back(read(node));
    return values;
  }
  if (node.size() < 1 || node.size() > kMostChoices) node.fail(fmt::format("1 to {} values", kMostChoices));
  for (std::size_t i = 0; i < node.size(); ++i) values.push_back(read(node.at(i)));
  return values;
}

std::string text_of(const ConfigNode& node) { return node.as_text(); }

std::string one_of(const ConfigNode& node, std::span<const std::string_view> known, const char* hint = "") {
  std::string value = node.as_text();
  if (std::find(known.begin(), known.end(), value) == known.end())
    node.fail(fmt::format("{}", fmt::join(known, " or ")), suggestion(value, known) + hint);
  return value;
}

// Methods as other programs spell them: "attention_sink(window_size=128)" is AttentionSink's.
std::string without_underscores(const std::string& recipe) {
  const std::size_t end = std::min(recipe.find_first_of("(@|;: "), recipe.size());
  std::string name = recipe.substr(0, end);
  std::erase(name, '_');
  return name + recipe.substr(end);
}

// "Random: {keep: 0.7}" and "{name: Random, keep: 0.7}" as recipes write them.
std::string strategy_text(const ConfigNode& node) {
  if (!node.is_map()) return node.as_text();
  const auto name = node.find("name");
  if (!name)
    node.fail("a recipe, or a name and its parameters", "; put a recipe with ': ' or ', ' in quotes");
  std::string arguments;
  for (const std::string& key : node.keys()) {
    const auto value = node.find(key);
    if (key == "name" || !value) continue;
    if (!value->is_scalar()) value->fail("a number or a word");
    arguments += fmt::format("{}{}={}", arguments.empty() ? "" : ",", key, value->scalar());
  }
  return arguments.empty() ? name->as_text() : fmt::format("{}({})", name->as_text(), arguments);
}

Strategy read_strategy(const ConfigNode& node, int64_t threshold) {
  const std::string written = strategy_text(node);
  try {
    return {.written = written,
            .recipe = with_threshold(Recipe::parse(without_underscores(written)), threshold),
            .place = place_of(node)};
  } catch (const InputError& error) {
    const bool cut =
        std::count(written.begin(), written.end(), '(') != std::count(written.begin(), written.end(), ')');
    node.fail_with(fmt::format("{}{}", error.what(),
                               cut ? "; in a [list] of YAML, put a recipe with commas in quotes" : ""));
  }
}

void add_strategies(const FieldReader& fields, const ExperimentOverrides& overrides, Experiment& experiment) {
  int64_t threshold = 0;
  if (const auto node = fields.find("kv_threshold")) threshold = node->as_int(0, Recipe::kMaxTokens);
  if (const auto node = fields.find("strategies")) {
    if (experiment.mode == "baseline") node->fail("no strategies in the mode baseline");
    const auto read = [&](const ConfigNode& one) { return read_strategy(one, threshold); };
    for (Strategy& strategy : one_or_many(*node, read)) {
      for (const Strategy& other : experiment.strategies)
        if (other.recipe.text() == strategy.recipe.text())
          fail_at(strategy.place, fmt::format("expected each strategy once, found {} and {}", other.written,
                                              strategy.written));
      experiment.strategies.push_back(std::move(strategy));
    }
  }
  auto& all = experiment.strategies;
  const bool chosen = is_chosen(overrides.only, experiment.name);
  std::erase_if(all, [&](const Strategy& strategy) {
    return !chosen && !strategy.is_baseline() && !is_chosen(overrides.only, strategy.written);
  });
  const auto baseline = std::find_if(all.begin(), all.end(), std::mem_fn(&Strategy::is_baseline));
  if (baseline == all.end())
    all.insert(all.begin(),
               {.written = kBaselineName, .recipe = Recipe::parse(kBaselineRecipe), .place = {}});
  else
    std::rotate(all.begin(), baseline, baseline + 1);
}

PromptChoice file_choice(const ConfigNode& node, const std::string& field) {
  return {.source = {.files = {existing_file(node)}, .field = field}, .place = place_of(node)};
}

PromptChoice read_dataset(const ConfigNode& node) {
  if (!node.is_map()) return file_choice(node, "");
  const FieldReader fields(node, dataset_fields());
  fields.check_names();
  std::string field;
  if (const auto name = fields.find("prompt_field")) field = name->as_text();
  const auto path = fields.find("local_path");
  if (!path) node.fail_with("expected local_path, the file of the data set, found none");
  return file_choice(*path, field);
}

void add_passkey(const ConfigNode& node, PasskeyChoice& passkey) {
  passkey.asked = true;
  passkey.place = place_of(node);
  if (!node.is_map()) {
    passkey.asked = node.as_bool();
    return;
  }
  const FieldReader fields(node, passkey_fields());
  fields.check_names();
  if (const auto depths = fields.find("depths"))
    passkey.depths = one_or_many(*depths, [](const ConfigNode& depth) { return depth.as_number(0, 1); });
  if (const auto trials = fields.find("trials")) passkey.trials = static_cast<int>(trials->as_int(1, 10000));
  if (const auto file = fields.find("text_file")) passkey.text_file = existing_file(*file);
}

void add_prompts(const FieldReader& fields, Experiment& experiment) {
  std::string field;
  if (const auto node = fields.find("prompt_field")) field = node->as_text();
  const auto add = [&](const char* name, auto read) {
    if (const auto node = fields.find(name))
      for (PromptChoice& choice : one_or_many(*node, read)) experiment.prompts.push_back(std::move(choice));
  };
  add("prompt_sets", [](const ConfigNode& node) {
    const std::vector<std::string> names = builtin_prompt_sets();
    const std::vector<std::string_view> known(names.begin(), names.end());
    return PromptChoice{.source = {.sets = {one_of(node, known)}}, .place = place_of(node)};
  });
  if (const auto node = fields.find("prompts"))
    experiment.prompts.push_back(
        {.source = {.texts = one_or_many(*node, text_of)}, .place = place_of(*node)});
  add("prompt_files", [&](const ConfigNode& node) { return file_choice(node, field); });
  add("text_files", [](const ConfigNode& node) {
    return PromptChoice{.source = {.whole_files = {existing_file(node)}}, .place = place_of(node)};
  });
  add("dataset", read_dataset);
  if (const auto node = fields.find("passkey")) add_passkey(*node, experiment.passkey);
  if (experiment.prompts.empty() && !experiment.passkey.asked)
    experiment.prompts.push_back({.source = {.sets = {"general"}}, .place = experiment.place});
}

void add_models(const FieldReader& fields, const ExperimentOverrides& overrides, Experiment& experiment) {
  if (!overrides.model.empty()) {
    experiment.models = {{overrides.model, {"--model"}}};
    return;
  }
  const auto node = fields.find("models");
  if (!node)
    fail_at(experiment.place, "models: expected the name of a model, found none; --model NAME gives one");
  experiment.models = one_or_many(*node, [](const ConfigNode& one) {
    return ModelChoice{one.as_text(), place_of(one)};
  });
}

void add_numbers(const FieldReader& fields, Experiment& experiment) {
  const auto integer = [&](const char* name, auto& value, int64_t min, int64_t max) {
    if (const auto node = fields.find(name))
      value = static_cast<std::decay_t<decltype(value)>>(node->as_int(min, max));
  };
  integer("max_gen_tokens", experiment.max_gen_tokens, 1, kMostTokens);
  integer("limit", experiment.limit, 0, kMostSamples);
  integer("max_context", experiment.max_context, 0, kMostTokens);
  integer("repeats", experiment.repeats, 1, 1000);
  integer("batch_size", experiment.batch_size, 1, 1024);
  // Only full pages lose tokens: what acts on short caches would free nothing of long ones.
  if (fields.find("kv_threshold")) experiment.page_tokens = kThresholdPageTokens;
  integer("page_size", experiment.page_tokens, 1, kMaxPageTokens);
  integer("chunk", experiment.chunk_tokens, 1, 1 << 16);
  integer("top_k", experiment.sampler.top_k, 0, kMostTokens);
  if (const auto node = fields.find("temperature")) experiment.sampler.temperature = node->as_number(0, 100);
  if (const auto node = fields.find("top_p")) {
    experiment.sampler.top_p = node->as_number(0, 1);
    if (experiment.sampler.top_p == 0) node->fail("a share over 0, 1 at most");
  }
  if (const auto node = fields.find("context_lengths"))
    experiment.context_lengths =
        one_or_many(*node, [](const ConfigNode& one) { return one.as_int(1, kMostTokens); });
  if (const auto node = fields.find("seeds"))
    experiment.seeds = one_or_many(
        *node, [](const ConfigNode& one) { return static_cast<uint64_t>(one.as_int(0, INT64_MAX)); });
}

void add_settings(const FieldReader& fields, Experiment& experiment) {
  static constexpr std::array<std::string_view, 3> kDevices = {"auto", "cpu", "cuda"};
  static constexpr std::array<std::string_view, 5> kWeights = {"stored", "f32", "f16", "bf16", "int8"};
  if (const auto node = fields.find("mode"))
    experiment.mode = one_of(*node, kModes, "; this mode does not exist yet");
  if (const auto node = fields.find("device")) experiment.device = one_of(*node, kDevices);
  if (const auto node = fields.find("weights")) experiment.weights = one_of(*node, kWeights);
  if (const auto node = fields.find("cache_dir")) experiment.cache_dir = node->as_text();
  const auto flag = [&](const char* name, bool& value) {
    if (const auto node = fields.find(name)) value = node->as_bool();
  };
  flag("offline", experiment.offline);
  flag("chat", experiment.chat);
  flag("ignore_eos", experiment.ignore_eos);
  flag("quality", experiment.quality);
}

template <typename Value>
bool has_twice(std::vector<Value> values) {
  std::sort(values.begin(), values.end());
  return std::adjacent_find(values.begin(), values.end()) != values.end();
}

// `common` holds what stands beside the list of experiments: what one of them does not say itself.
Experiment read_experiment(const ConfigNode& node, const ConfigNode* common,
                           const ExperimentOverrides& overrides, const std::string& fallback_name) {
  // The mode first: fields of one that does not exist yet would only hide that it does not.
  Experiment experiment{.name = fallback_name, .place = place_of(node)};
  const FieldReader fields(node, experiment_fields(), common);
  add_settings(fields, experiment);
  fields.check_names();
  if (const auto name = fields.find_own("name")) experiment.name = name->as_text();
  add_models(fields, overrides, experiment);
  add_numbers(fields, experiment);
  add_strategies(fields, overrides, experiment);
  add_prompts(fields, experiment);
  if (!overrides.cache_dir.empty()) experiment.cache_dir = overrides.cache_dir;
  if (overrides.max_gen_tokens > 0) experiment.max_gen_tokens = overrides.max_gen_tokens;
  if (overrides.limit >= 0) experiment.limit = overrides.limit;
  experiment.offline |= overrides.offline;
  if (!overrides.device.empty()) experiment.device = overrides.device;
  for (const auto& [field, twice] : {std::pair("seeds", has_twice(experiment.seeds)),
                                     std::pair("context_lengths", has_twice(experiment.context_lengths))})
    if (twice) fields.find(field)->fail("each value once");
  return experiment;
}

// Of the whole run: where experiments stand in a list, not in one of them.
void check_common(const ConfigNode& element, bool has_common) {
  const FieldReader fields(element, experiment_fields());
  for (const char* name : {"experiments", "output_dir", "save_results"})
    if (const auto inner = fields.find_own(name))
      inner->fail_with(
          has_common ? "expected beside the list of experiments"
                     : "expected beside a list under `experiments`; --output-dir says where results go");
}

// Modes that do not exist are refused, unless --only asks for others.
bool is_left_out(const ConfigNode& element, const ExperimentOverrides& overrides) {
  const auto mode = element.find("mode");
  if (overrides.only.empty() || !mode || !mode->is_scalar()) return false;
  const auto name = element.find("name");
  return std::find(kModes.begin(), kModes.end(), mode->scalar()) == kModes.end() &&
         !is_chosen(overrides.only, mode->scalar()) &&
         !(name && name->is_scalar() && is_chosen(overrides.only, name->scalar()));
}

void check_names(const ExperimentFile& file) {
  for (std::size_t i = 0; i < file.experiments.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (file.experiments[i].name == file.experiments[j].name)
        fail_at(
            file.experiments[i].place,
            fmt::format("name: expected one for each experiment, found {} twice", file.experiments[i].name));
}

// Nothing of what --only asks for would be an empty run.
void check_only(const ExperimentFile& file, const ExperimentOverrides& overrides) {
  std::vector<std::string> names;
  for (const Experiment& experiment : file.experiments) {
    names.push_back(plain_name(experiment.name));
    for (const Strategy& strategy : experiment.strategies) names.push_back(plain_name(strategy.written));
  }
  for (const std::string& only : overrides.only)
    if (std::find(names.begin(), names.end(), plain_name(only)) == names.end())
      throw InputError(fmt::format("--only: expected strategies or experiments of the file, found {}", only));
}

}  // namespace

bool Strategy::is_baseline() const { return recipe.text() == kBaselineRecipe; }

Recipe with_threshold(const Recipe& recipe, int64_t threshold) {
  if (threshold == 0) return recipe;
  const auto text_of_step = [&](const RecipeStep& step) {
    const bool acts = step.method->name != "dense" && !step.triggered;
    return step.text() + (acts ? fmt::format("@tokens>{}", threshold) : "");
  };
  std::string text = fmt::format("keys({})", key_basis_name(recipe.key_basis()));
  for (const Statement& statement : recipe.statements()) {
    if (statement.implied) continue;
    std::string pipeline;
    for (const RecipeStep& step : statement.pipeline)
      pipeline += (pipeline.empty() ? "" : " | ") + text_of_step(step);
    text += fmt::format(" ; {}{}", statement.rest ? "rest" : statement.where.text(), ": ") + pipeline;
  }
  return Recipe::parse(text);
}

ExperimentFile read_experiments(const ConfigNode& root, const ExperimentOverrides& overrides) {
  ExperimentFile file;
  const auto list = root.is_map() ? root.find("experiments") : std::optional(root);
  const ConfigNode* common = root.is_map() && list ? &root : nullptr;
  if (root.is_map()) {
    if (const auto folder = FieldReader(root, experiment_fields()).find("output_dir"))
      file.output_dir = folder->as_text();
    if (const auto save = FieldReader(root, experiment_fields()).find("save_results"))
      file.save = save->as_bool();
  }
  if (!overrides.output_dir.empty()) file.output_dir = overrides.output_dir;
  if (root.is_map() && !list) {
    file.experiments.push_back(read_experiment(root, nullptr, overrides, "experiment"));
  } else {
    if (!list->is_list()) list->fail("fields of an experiment, or a list of experiments");
    if (list->size() < 1 || list->size() > kMostChoices)
      list->fail(fmt::format("1 to {} experiments", kMostChoices));
    if (common) FieldReader(root, experiment_fields()).check_names();
    for (std::size_t i = 0; i < list->size(); ++i) {
      const ConfigNode element = list->at(i);
      if (element.is_map()) check_common(element, common != nullptr);
      if (element.is_map() && is_left_out(element, overrides)) continue;
      file.experiments.push_back(
          read_experiment(element, common, overrides, fmt::format("experiment-{}", i + 1)));
    }
  }
  check_names(file);
  check_only(file, overrides);
  if (!overrides.only.empty())
    std::erase_if(file.experiments, [&](const Experiment& experiment) {
      return !is_chosen(overrides.only, experiment.name) &&
             std::none_of(experiment.strategies.begin(), experiment.strategies.end(),
                          [&](const Strategy& one) { return is_chosen(overrides.only, one.written); });
    });
  return file;
}

}  // namespace kva
