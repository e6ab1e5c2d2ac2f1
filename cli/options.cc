#include "cli/options.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <map>

#include "runtime/error.h"

namespace kva::cli {

void add_common_options(CLI::App& app, CommonOptions& options) {
  options.stamp.command = command_line();
  app.add_option("--threads", options.threads, "Threads in all (0: one a core)")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Seed of controls, clustering and intervals; same seed, same bytes")
      ->capture_default_str();
  auto* quiet = app.add_flag("-q,--quiet", options.quiet, "Print errors only");
  app.add_flag("-v,--verbose", options.verbose, "Say more while working")->excludes(quiet);
}

CLI::Option* add_model_options(CLI::App& app, CaptureOptions& options) {
  auto* model =
      app.add_option("-m,--model", options.model,
                     "A folder in Hugging Face layout, an alias (smollm2-135m, opt-125m, gpt2, ...) or a "
                     "hub id (facebook/opt-125m)");
  app.add_option("--cache-dir", options.cache_dir, "Hugging Face cache to look in and fetch to");
  app.add_flag("--offline", options.offline, "Never fetch a model");
  app.add_option("--weights", options.weights, "Type of the weights in memory")
      ->check(CLI::IsMember({"stored", "f32", "f16", "bf16"}))
      ->capture_default_str();
  return model;
}

void add_prompt_options(CLI::App& app, CaptureOptions& options) {
  PromptSource& prompts = options.prompts;
  app.add_option("--prompt-set", prompts.sets,
                 "Built-in prompts: general, repetitive, code (default: all three)");
  app.add_option("-p,--prompt", prompts.texts, "A prompt; may be given several times")
      ->allow_extra_args(false);
  app.add_option("--prompts-file", prompts.files,
                 "Prompts from a .txt (one a line), .json (an array) or .jsonl file; repeatable")
      ->allow_extra_args(false);
  app.add_option("--text-file", prompts.whole_files, "A whole text file as one prompt; repeatable")
      ->allow_extra_args(false);
  app.add_option("--prompt-field", prompts.field,
                 "Member of JSON records that holds the prompt, \"turns\" say");
  app.add_option("--limit", prompts.limit, "Prompts of each set (0: all)")
      ->check(CLI::Range(int64_t{0}, int64_t{1000000}))
      ->capture_default_str();
  app.add_flag("--chat", options.chat, "Wrap each prompt in the model's chat template");
  app.add_option("--max-tokens", options.max_tokens, "Tokens generated after each prompt")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--max-context,--max-model-len", options.max_context,
                 "Tokens of context at most, generated ones included (0: what the model takes)")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24))
      ->capture_default_str();
}

void add_cache_options(CLI::App& app, CaptureOptions& options) {
  static const std::map<std::string, KeyBasis> kBases = {{"rotated", KeyBasis::kRotated},
                                                         {"plain", KeyBasis::kPlain},
                                                         {"page-relative", KeyBasis::kPageRelative}};
  app.add_option("--page-size", options.page_tokens, "Tokens of a page")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option_function<std::string>(
         "--kv-dtype",
         [&](const std::string& value) { options.kv_dtype = dtype_option("--kv-dtype", value); },
         "Type of cached keys and values: f16, bf16 or f32")
      ->default_str("f16");
  app.add_option("--key-basis", options.key_basis,
                 "How keys are stored: after RoPE, before it, or page-relative")
      ->transform(CLI::CheckedTransformer(kBases))
      ->default_str("rotated");
  app.add_option("--batch-size", options.batch_size, "Sequences decoded together")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
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
