// kvanalyze generate: text (or ids) from a model, streamed.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/count_option.h"
#include "cli/options.h"
#include "cli/report_options.h"
#include "compressors/compressor.h"
#include "kernels/check.h"
#include "reports/text_format.h"
#include "runtime/error.h"
#include "runtime/io/file.h"
#include "runtime/model/generator.h"
#include "runtime/model/model_folder.h"
#include "runtime/model/stop_finder.h"
#include "runtime/model/tokenizer.h"

namespace kva::cli {
namespace {

constexpr int64_t kMaxPromptBytes = int64_t{64} << 20;

struct GenerateCommand {
  CommonOptions common;
  CaptureOptions run;  // model, weights and cache
  GenerateOptions generation;
  std::vector<std::string> prompts;
  std::vector<std::string> prompt_ids;
  std::vector<std::string> prompt_files;
  std::vector<std::string> stops;
  std::string recipe;
  bool chat = false;
  bool print_ids = false;
  bool ignore_eos = false;
  bool timing = false;
};

std::vector<int32_t> parse_ids(const std::string& text) {
  std::vector<int32_t> ids;
  std::istringstream stream(text);
  for (std::string word; stream >> word;) {
    std::size_t used = 0;
    int64_t id = -1;
    try {
      id = std::stoll(word, &used);
    } catch (const std::exception&) {
      used = 0;
    }
    if (used != word.size() || id < 0 || id > INT32_MAX)
      throw InputError(
          fmt::format("--prompt-ids: expected token ids separated by spaces, found {:.40}", word));
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

std::vector<int32_t> encode(const Tokenizer& tokenizer, const std::string& text, bool chat) {
  return chat ? tokenizer.encode_chat(text) : tokenizer.encode(text);
}

// Writes one prompt's text as far as no stop string can begin in it any more.
class TextOutput {
 public:
  TextOutput(const Tokenizer& tokenizer, const std::vector<std::string>& stops, bool streams)
      : stream_(tokenizer), stops_(stops), streams_(streams) {}

  // False once a stop string has come.
  bool push(int32_t id) {
    write(stops_.push(stream_.push(id)));
    return !stops_.found();
  }
  void finish() {
    write(stops_.push(stream_.finish()));
    write(stops_.finish());
    if (!streams_) std::fwrite(held_.data(), 1, held_.size(), stdout);
    std::fputc('\n', stdout);
    std::fflush(stdout);
  }

 private:
  void write(const std::string& text) {
    if (!streams_) {
      held_ += text;
      return;
    }
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

  TextStream stream_;
  StopFinder stops_;
  bool streams_;
  std::string held_;
};

// Prompts in the order: --prompt, --prompt-file, --prompt-ids. Without a tokenizer there are only the last.
std::vector<std::vector<int32_t>> all_prompts(const GenerateCommand& command, const Tokenizer* tokenizer) {
  std::vector<std::vector<int32_t>> prompts;
  const auto add_text = [&](const std::string& text) {
    KVA_CHECK(tokenizer != nullptr, "text prompts come with a tokenizer");
    prompts.push_back(encode(*tokenizer, text, command.chat));
  };
  for (const std::string& text : command.prompts) add_text(text);
  for (const std::string& file : command.prompt_files) add_text(read_text_file(file, kMaxPromptBytes));
  for (const std::string& ids : command.prompt_ids) prompts.push_back(parse_ids(ids));
  if (prompts.empty())
    throw InputError("generate: expected --prompt, --prompt-file or --prompt-ids, found none of them");
  return prompts;
}

void print_ids(const std::vector<int32_t>& ids) {
  fmt::print("{}\n", fmt::join(ids, " "));
  std::fflush(stdout);
}

void print_timing(const GenerateStats& stats) {
  const int64_t decoded = stats.generated_tokens;
  fmt::print(stderr, "prefill {} tokens in {:.3f} s ({:.0f}/s), decode {} tokens in {:.3f} s ({:.1f}/s)\n",
             stats.prompt_tokens, stats.prefill_s,
             static_cast<double>(stats.prompt_tokens) / std::max(stats.prefill_s, 1e-9), decoded,
             stats.decode_s, static_cast<double>(decoded) / std::max(stats.decode_s, 1e-9));
}

// What the recipe did to the cache of one finished prompt.
void print_cache(const std::string& recipe, const KvCache& cache, SequenceId sequence) {
  const KvCacheOptions& options = cache.options();
  const int64_t values = cache.tokens(sequence) * options.layers * options.kv_heads * options.head_dim * 2;
  const auto held = static_cast<double>(cache.ledger().held());
  fmt::print(stderr, "cache under {}: {} tokens in {}, {:.2f} bits a value, {:.2f}x smaller than dense f16\n",
             recipe, cache.tokens(sequence), format_bytes(held), 8.0 * held / static_cast<double>(values),
             static_cast<double>(values) * 2.0 / held);
}

// The device, if it can hold the weights and the cache.
RunDevice device_for(const GenerateCommand& command, const std::optional<Recipe>& recipe,
                     const ModelFolder& folder, RunDevice device, const Say& say) {
  const auto needs = [&](const RunDevice& chosen) {
    const ModelConfig config = load_config(folder.path);
    if (recipe)
      check_recipe_runs(chosen, *recipe, config, command.run.page_tokens);
    else
      check_cache_runs(chosen, cache_options_for(config, command.run.page_tokens, command.run.kv_dtype,
                                                 command.run.key_basis));
  };
  return settled(std::move(device), command.run.device, needs, say);
}

void run_generate(GenerateCommand& command) {
  std::optional<Recipe> recipe;
  if (!command.recipe.empty()) recipe = Recipe::parse(command.recipe);
  Progress progress(progress_mode(command.common));
  const auto say = [&progress](const std::string& line) { progress.say(line); };
  RunDevice device = open_device(command.run.device, say);
  const ModelFolder folder = find_model(
      command.run.model, {.cache_dir = command.run.cache_dir, .allow_fetch = !command.run.offline});
  const bool wants_text = !command.print_ids || !command.stops.empty();
  std::optional<Tokenizer> tokenizer;
  if (wants_text || !command.prompts.empty() || !command.prompt_files.empty())
    tokenizer.emplace(Tokenizer::load(folder.path));
  const auto prompts = all_prompts(command, tokenizer ? &*tokenizer : nullptr);

  ThreadPool pool(command.common.threads);
  device = device_for(command, recipe, folder, std::move(device), say);
  Decoder decoder =
      Decoder::load(folder.path, {.weights = weight_form(command.run.weights), .device = device.ops}, pool);
  if (tokenizer) tokenizer->check_fits_model(decoder.config().vocab);
  KvCacheOptions cache_options =
      decoder.cache_options(command.run.page_tokens, command.run.kv_dtype, command.run.key_basis);
  if (recipe) cache_options = Compressor::cache_options(*recipe, cache_options);
  KvCache cache(cache_options, pool);
  std::optional<Compressor> compressor;
  if (recipe) {
    compressor.emplace(*recipe, cache, pool, command.common.seed,
                       tokenizer ? std::make_shared<const TokenClasses>(*tokenizer) : nullptr);
    if (compressor->needs_sample())
      throw InputError(
          fmt::format("--recipe {}: it learns from a calibration text; use kvanalyze ab", recipe->text()));
    command.generation.share_prefixes = Compressor::shares_prefixes(*recipe);
  }
  command.generation.batch_size = command.run.batch_size;
  command.generation.sampler.seed = command.common.seed;
  if (!command.ignore_eos) command.generation.end_tokens = decoder.config().eos_ids;

  std::vector<TextOutput> outputs;
  // Of several prompts only one can be written as it comes.
  if (wants_text)
    for (std::size_t i = 0; i < prompts.size(); ++i)
      outputs.emplace_back(*tokenizer, command.stops, prompts.size() == 1 && !command.print_ids);
  GenerateCallbacks callbacks;
  callbacks.on_token = [&](std::size_t prompt, int32_t id) {
    return !wants_text || outputs[prompt].push(id);
  };
  if (compressor) callbacks.listener = &*compressor;
  callbacks.on_finished = [&](std::size_t prompt, SequenceId sequence, const Generation& generation) {
    if (command.print_ids)
      print_ids(generation.tokens);
    else
      outputs[prompt].finish();
    if (recipe && prompts.size() == 1) print_cache(recipe->text(), cache, sequence);
  };
  const GenerateResult result = generate(decoder, cache, prompts, command.generation, callbacks);
  if (recipe && prompts.size() > 1)
    fmt::print(stderr, "cache under {}: {} at its fullest, {} prompt tokens shared\n", recipe->text(),
               format_bytes(static_cast<double>(cache.ledger().peak)), result.stats.shared_tokens);
  if (command.timing) print_timing(result.stats);
}

void add_sampling_options(CLI::App& app, GenerateOptions& options) {
  add_count(app, "-n,--max-tokens", options.max_tokens, 1, 1 << 24, "Tokens generated after each prompt");
  app.add_option("--temperature", options.sampler.temperature, "0 takes the most likely token")
      ->type_name("T")
      ->capture_default_str();
  app.add_option("--top-k", options.sampler.top_k, "Of so many most likely tokens only (0: all)")
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--top-p", options.sampler.top_p,
                 "Of the most likely tokens that reach this probability only")
      ->type_name("P")
      ->capture_default_str();
  add_count(app, "--chunk", options.chunk_tokens, 1, 1 << 16, "Tokens of a prompt decoded at once");
}

}  // namespace

void add_generate(CLI::App& app) {
  auto command = std::make_shared<GenerateCommand>();
  command->generation.max_tokens = 128;
  CLI::App* sub = app.add_subcommand("generate", "Text from a model, streamed");
  sub->footer(
      "With --prompt-ids and --print-ids no tokenizer is needed. Several prompts are decoded together and\n"
      "printed one after the other.");
  add_common_options(*sub, command->common);
  add_device_option(*sub, command->run.device.name);
  add_model_options(*sub, command->run)->required();
  sub->add_option("-p,--prompt", command->prompts, "A prompt; repeatable")->allow_extra_args(false);
  sub->add_option("--prompt-file", command->prompt_files, "A file whose whole text is a prompt; repeatable")
      ->type_name("FILE")
      ->allow_extra_args(false);
  sub->add_option("--prompt-ids", command->prompt_ids, "A prompt as token ids, \"1 2 3\"; repeatable")
      ->type_name("IDS")
      ->allow_extra_args(false);
  sub->add_flag("--chat", command->chat, "The prompt as a user's message in the model's chat template");
  add_sampling_options(*sub, command->generation);
  sub->add_option("--stop", command->stops, "End before this text; repeatable")->allow_extra_args(false);
  sub->add_flag("--ignore-eos", command->ignore_eos, "Go on after the model's end token");
  sub->add_flag("--print-ids", command->print_ids,
                "Print token ids, a line for each prompt, instead of text");
  sub->add_flag("--timing", command->timing, "Print tokens per second to stderr");
  add_cache_options(*sub, command->run);
  sub->add_option(
         "--recipe", command->recipe,
         "How the cache is compressed while it is read, such as \"quant(bits=4)\"; kvanalyze methods "
         "lists what there is")
      ->type_name("RECIPE")
      ->excludes("--kv-dtype")
      ->excludes("--key-basis");
  sub->callback([command] { run_generate(*command); });
}

}  // namespace kva::cli
