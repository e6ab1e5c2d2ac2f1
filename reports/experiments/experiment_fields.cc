#include "reports/experiments/experiment_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "compressors/spelling.h"
#include "kernels/check.h"
#include "runtime/error.h"
#include "runtime/io/utf8.h"

namespace kva {

std::span<const ExperimentField> experiment_fields() {
  static const std::vector<ExperimentField> fields = {
      {"experiments", {}, "a list of experiments; what stands beside it holds for all of them"},
      {"name", {}, "of the experiment, in its rows"},
      {"mode", {}, "generate, or baseline: no strategy but Baseline"},
      {"models", {"model", "model_name"}, "folders, aliases or hub ids"},
      {"cache_dir", {}, "Hugging Face cache to look in and fetch to"},
      {"offline", {}, "true: never fetch a model"},
      {"weights", {}, "stored, f32, f16 or bf16"},
      {"output_dir", {"results_dir"}, "folder of the results"},
      {"save_results", {}, "false: write nothing, as `--no-save`"},
      {"strategies", {"recipes", "strategy", "recipe"}, "recipes, or names with their parameters"},
      {"kv_threshold", {}, "N: strategies that do not say when act at more than N tokens (`@tokens>N`)"},
      {"prompt_sets", {"prompt_set"}, "built-in sets: general, repetitive, code"},
      {"prompts", {"prompt"}, "the texts themselves"},
      {"prompt_files",
       {"prompts_file", "prompt_file"},
       "`.txt` (a prompt a line), `.json` (an array), `.jsonl` (a record a line)"},
      {"prompt_field", {}, "member of those records that holds the prompt, `turns` say"},
      {"text_files", {"text_file"}, "whole files as one prompt each"},
      {"dataset", {"datasets"}, "a file with its `prompt_field`, or several"},
      {"passkey", {}, "true, or how: retrieval of a hidden number"},
      {"max_gen_tokens",
       {"max_tokens", "max_new_tokens", "generation_length", "length"},
       "tokens generated after each turn"},
      {"limit", {"max_samples"}, "samples of each prompt set, 0 for all"},
      {"context_lengths",
       {"context_length"},
       "tokens that the first prompt is cut or repeated to; none: as long as it is"},
      {"max_context", {"max_model_len"}, "tokens of prompts and answers at most"},
      {"repeats", {"num_runs", "runs"}, "of every trial"},
      {"seeds", {"seed"}, "of strategies, sampling and passkeys"},
      {"temperature", {}, "0 takes the most likely token"},
      {"top_k", {}, "of so many most likely tokens only, 0 for all"},
      {"top_p", {}, "of the most likely tokens that reach this probability only"},
      {"device", {}, "cpu, cuda, or auto: the GPU where there is one that can run every strategy"},
      {"batch_size", {}, "copies of the sample that are decoded together"},
      {"page_size", {"page_tokens", "block_size"}, "tokens of a page: 64, or 16 beside a kv_threshold"},
      {"chunk", {"chunk_size"}, "tokens of a prompt that are decoded at once"},
      {"chat", {}, "true: prompts in the model's chat template"},
      {"ignore_eos", {}, "true: go on after the model's end token"},
      {"quality", {}, "false: do not score strategies on Baseline's continuation"},
  };
  return fields;
}

std::span<const ExperimentField> dataset_fields() {
  static const std::vector<ExperimentField> fields = {
      {"local_path", {"path", "file"}, "the file"},
      {"prompt_field", {"field"}, "member of its records that holds the prompt"},
  };
  return fields;
}

std::span<const ExperimentField> passkey_fields() {
  static const std::vector<ExperimentField> fields = {
      {"depths", {"depth"}, "shares of the text before the number"},
      {"trials", {}, "at each length and depth"},
      {"text_file", {"text"}, "whose words hide the number"},
  };
  return fields;
}

ConfigPlace place_of(const ConfigNode& node) {
  return {fmt::format("{}:{}{}{}", node.source(), node.line(), node.path().empty() ? "" : ": ", node.path())};
}

void fail_at(const ConfigPlace& place, std::string_view message) {
  throw InputError(place.text.empty() ? std::string(message) : fmt::format("{}: {}", place.text, message));
}

std::string existing_file(const ConfigNode& node) {
  namespace fs = std::filesystem;
  std::string written = node.as_text();
  const fs::path path(written);
  std::error_code ignored;
  if (fs::is_regular_file(path, ignored)) return written;
  const fs::path beside = fs::path(node.source()).parent_path() / path;
  if (path.is_relative() && fs::is_regular_file(beside, ignored)) return beside.string();
  node.fail("a file", fs::exists(path, ignored) ? ", which is no file" : ", which does not exist");
}

std::string plain_name(std::string_view strategy) {
  std::string name;
  for (const char c : strategy.substr(0, strategy.find_first_of("(@|;:")))
    if (std::isalnum(static_cast<unsigned char>(c)))
      name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name;
}

bool is_chosen(const std::vector<std::string>& only, std::string_view name) {
  return only.empty() || std::any_of(only.begin(), only.end(), [&](const std::string& one) {
           return one == name || plain_name(one) == plain_name(name);
         });
}

FieldReader::FieldReader(const ConfigNode& map, std::span<const ExperimentField> known,
                         const ConfigNode* common)
    : map_(map), known_(known), common_(common) {
  (void)map.keys();
}

std::optional<ConfigNode> FieldReader::find_in(const ConfigNode& map, std::string_view name) const {
  const auto field = std::find_if(known_.begin(), known_.end(),
                                  [&](const ExperimentField& one) { return one.name == name; });
  KVA_CHECK(field != known_.end(), "a field of the table");
  std::optional<ConfigNode> found = map.find(name);
  std::string_view first = name;
  for (const std::string_view alias : field->aliases) {
    auto other = map.find(alias);
    if (other && found) other->fail_with(fmt::format("expected {} once, found it as {} too", name, first));
    if (!other) continue;
    found = std::move(other);
    first = alias;
  }
  return found;
}

std::optional<ConfigNode> FieldReader::find_own(std::string_view name) const { return find_in(map_, name); }

std::optional<ConfigNode> FieldReader::find(std::string_view name) const {
  auto own = find_in(map_, name);
  return own || !common_ ? own : find_in(*common_, name);
}

void FieldReader::check_names() const {
  std::vector<std::string_view> names;
  for (const ExperimentField& field : known_) {
    names.push_back(field.name);
    names.insert(names.end(), field.aliases.begin(), field.aliases.end());
  }
  for (std::size_t i = 0; i < map_.keys().size(); ++i) {
    const std::string& key = map_.keys()[i];
    if (std::find(names.begin(), names.end(), key) != names.end()) continue;
    throw InputError(fmt::format("{}:{}: {}expected a known field, found {}{}", map_.source(),
                                 map_.key_line(i), map_.path().empty() ? "" : map_.path() + ": ",
                                 quoted_for_error(key), suggestion(lower_case(key), names)));
  }
}

}  // namespace kva
