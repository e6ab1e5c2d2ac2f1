#include "cli/options.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>

#include "cli/count_option.h"
#include "runtime/error.h"

namespace kva::cli {
namespace {

constexpr int64_t kMany = 1000000;

template <typename Value>
CLI::Option* add_choice(CLI::App& app, const std::string& names, Value set, const std::string& choices,
                        const std::string& fallback, const std::string& help) {
  return app.add_option_function<std::string>(names, set, help)->type_name(choices)->default_str(fallback);
}

KeyBasis key_basis_option(const std::string& value) {
  if (const auto basis = parse_key_basis(value)) return *basis;
  throw InputError(fmt::format("--key-basis: expected rotated, plain or page-relative, found {}", value));
}

}  // namespace

void add_common_options(CLI::App& app, CommonOptions& options) {
  options.stamp.command = command_line();
  add_count(app, "--threads", options.threads, 0, 1024, "Threads in all (0: one a core)")->group("Run");
  app.add_option("--seed", options.seed, "Seed of controls, clusters and intervals; same seed, same bytes")
      ->type_name("N")
      ->capture_default_str()
      ->group("Run");
  auto* quiet = app.add_flag("-q,--quiet", options.quiet, "Print errors only")->group("Run");
  app.add_flag("-v,--verbose", options.verbose, "Say more while working")->excludes(quiet)->group("Run");
}

CLI::Option* add_model_options(CLI::App& app, ModelOptions& options) {
  const std::string group = "Model";
  auto* model =
      app.add_option("-m,--model", options.model,
                     "A folder in Hugging Face layout, an alias (smollm2-135m, opt-125m, gpt2) or a "
                     "hub id (facebook/opt-125m)")
          ->type_name("NAME")
          ->group(group);
  app.add_option("--cache-dir", options.cache_dir, "Hugging Face cache to look in and fetch to")
      ->type_name("DIR")
      ->group(group);
  app.add_flag("--offline", options.offline, "Never fetch a model")->group(group);
  add_choice(
      app, "--weights",
      [&options](const std::string& value) {
        (void)weight_form(value);
        options.weights = value;
      },
      "stored|f32|f16|bf16|int8", options.weights, "Form of the weights in memory")
      ->group(group);
  return model;
}

CLI::Option* add_device_option(CLI::App& app, std::string& device) {
  return add_choice(
             app, "--device",
             [&device](const std::string& value) {
               check_device_name(value);
               device = value;
             },
             "auto|cpu|cuda", device,
             "What decodes and analyses pages; auto: the GPU, where there is one that can run all of it")
      ->group("Run");
}

void add_prompt_options(CLI::App& app, CaptureOptions& options) {
  const std::string group = "Prompts";
  PromptSource& prompts = options.prompts;
  app.add_option("--prompt-set", prompts.sets, "A built-in set, repeatable (default: all three)")
      ->allow_extra_args(false)
      ->type_name("general|repetitive|code")
      ->group(group);
  app.add_option("-p,--prompt", prompts.texts, "A prompt, repeatable")
      ->allow_extra_args(false)
      ->type_name("TEXT")
      ->group(group);
  app.add_option("--prompts-file", prompts.files,
                 "Prompts of a .txt (one a line), .json (an array) or .jsonl file, repeatable")
      ->allow_extra_args(false)
      ->type_name("FILE")
      ->group(group);
  app.add_option("--text-file", prompts.whole_files, "A whole text file as one prompt, repeatable")
      ->allow_extra_args(false)
      ->type_name("FILE")
      ->group(group);
  app.add_option("--prompt-field", prompts.field, "Member of JSON records that holds the prompt, turns say")
      ->type_name("NAME")
      ->group(group);
  add_count(app, "--limit", prompts.limit, 0, kMany, "Prompts of each set (0: all)")->group(group);
  app.add_flag("--chat", options.chat, "Wrap each prompt in the model's chat template")->group(group);
  add_count(app, "--max-tokens", options.max_tokens, 0, kMany, "Tokens generated after each prompt")
      ->group(group);
  add_count(app, "--max-context,--max-model-len", options.max_context, 0, 16 * kMany,
            "Tokens of context at most, generated ones included (0: what the model takes)")
      ->group(group);
}

void add_cache_options(CLI::App& app, CaptureOptions& options) {
  const std::string group = "Cache";
  add_count(app, "--page-size", options.page_tokens, 1, kMaxPageTokens, "Tokens of a page")->group(group);
  add_choice(
      app, "--kv-dtype",
      [&options](const std::string& value) { options.kv_dtype = dtype_option("--kv-dtype", value); },
      "f16|bf16|f32", "f16", "Type of cached keys and values")
      ->group(group);
  add_choice(
      app, "--key-basis",
      [&options](const std::string& value) { options.key_basis = key_basis_option(value); },
      "rotated|plain|page-relative", "rotated",
      "Keys are stored after RoPE, before it, or relative to their page")
      ->group(group);
  add_count(app, "--batch-size", options.batch_size, 1, 1024, "Sequences decoded together")->group(group);
}

DType dtype_option(const std::string& option, const std::string& value) {
  if (const auto type = parse_dtype(value)) return *type;
  throw InputError(fmt::format("{}: expected f16, bf16 or f32, found {}", option, value));
}

std::string command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string raw{std::istreambuf_iterator<char>(file), {}};
  std::string line;
  std::size_t start = 0;
  while (start < raw.size()) {
    std::size_t end = raw.find('\0', start);
    if (end == std::string::npos) end = raw.size();
    std::string word = raw.substr(start, end - start);
    if (start == 0) word = "kvanalyze";
    if (word.empty() || word.find_first_of(" \t\n\"'\\$`;&|<>*?()") != std::string::npos) {
      std::string quoted = "'";
      for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
      word = quoted + "'";
    }
    line += (line.empty() ? "" : " ") + word;
    start = end + 1;
  }
  return line;
}

}  // namespace kva::cli
