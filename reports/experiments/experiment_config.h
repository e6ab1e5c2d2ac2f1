// What `kvanalyze run` is asked to do, read from YAML or JSON in any of the shapes that docs/experiments.md
// lists, into one plain form. Nothing here opens a model.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compressors/recipe.h"
#include "reports/model_run.h"
#include "reports/passkey.h"
#include "reports/prompts.h"
#include "runtime/io/config_tree.h"
#include "runtime/model/sampler.h"

namespace kva {

// "file:line: field" of a value, for mistakes that only show later: a layer that the model does not have,
// say.
struct ConfigPlace {
  std::string text;
};

struct Strategy {
  std::string written;  // as the user wrote it
  Recipe recipe;        // with the threshold, where it says nothing of when
  ConfigPlace place;

  bool is_baseline() const;  // dense(f16), the cache as it is
};

struct ModelChoice {
  std::string name;
  ConfigPlace place;
};

// One source of samples; several of one experiment follow one another.
struct PromptChoice {
  PromptSource source;  // without the limit
  ConfigPlace place;
};

struct PasskeyChoice {
  bool asked = false;
  std::vector<double> depths = {0, 0.25, 0.5, 0.75, 1};
  int trials = 1;         // at each length and depth
  std::string text_file;  // whose words hide the key; empty: the built-in general prompts
  ConfigPlace place;
};

struct Experiment {
  std::string name;
  std::string mode = "generate";  // or "baseline"
  std::vector<ModelChoice> models;
  std::vector<Strategy> strategies;  // Baseline first, whether it was written or not
  std::vector<PromptChoice> prompts;
  PasskeyChoice passkey;
  int64_t max_gen_tokens = 100;
  int64_t limit = 0;                     // samples of each prompt set, 0 for all
  std::vector<int64_t> context_lengths;  // tokens of the prompt; empty: as long as it is
  int64_t max_context = 0;               // tokens of prompts and answers, 0: what the model takes
  int64_t repeats = 1;
  std::vector<uint64_t> seeds = {0};
  SamplerOptions sampler;  // but for its seed
  std::string device = "auto";
  int64_t batch_size = 1;
  int page_tokens = 64;
  int64_t chunk_tokens = 512;  // of prefill
  std::string cache_dir;
  bool offline = false;
  std::string weights = "stored";
  bool chat = false;
  bool ignore_eos = false;
  bool quality = true;  // scores every strategy on Baseline's continuation
  ConfigPlace place;
};

struct ExperimentFile {
  std::string output_dir = "results";
  bool save = true;
  std::vector<Experiment> experiments;
};

// What the command line says instead of the file.
struct ExperimentOverrides {
  std::string model;
  std::string cache_dir;
  std::string output_dir;
  int64_t max_gen_tokens = 0;  // 0: as in the file
  int64_t limit = -1;          // -1: as in the file
  bool offline = false;
  std::string device;             // empty: as in the file
  std::vector<std::string> only;  // names of strategies or experiments; Baseline stays
};

// A field, and what else it may be called: the one table of both.
struct ExperimentField {
  std::string_view name;
  std::vector<std::string_view> aliases;
  std::string_view meaning;
};
std::span<const ExperimentField> experiment_fields();

// Throws InputError for the first mistake, "<file>:<line>: <field>: expected ..., found ...". Strategies are
// recipes: what the recipe language does not know is refused in its own words.
ExperimentFile read_experiments(const ConfigNode& root, const ExperimentOverrides& overrides = {});

// The recipe with `@tokens>threshold` at each step that says nothing of when it acts, but for dense pages.
Recipe with_threshold(const Recipe& recipe, int64_t threshold);

// Names as --only compares them: "attention_sink" and "AttentionSink(sink=4)" are both "attentionsink".
std::string plain_name(std::string_view strategy);

// Throws InputError naming the place: "<place>: <message>".
[[noreturn]] void fail_at(const ConfigPlace& place, std::string_view message);

}  // namespace kva
