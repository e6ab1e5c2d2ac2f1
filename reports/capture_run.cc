#include "reports/capture_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <map>
#include <nlohmann/json.hpp>

#include "reports/provenance.h"
#include "runtime/backend/host_memory.h"
#include "runtime/clock.h"
#include "runtime/error.h"
#include "runtime/io/hash.h"
#include "runtime/model/decoder.h"
#include "runtime/model/generator.h"
#include "runtime/model/model_folder.h"
#include "runtime/model/tokenizer.h"

namespace kva {
namespace {

using nlohmann::ordered_json;

double rate(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0.0;
}

struct EncodedPrompt {
  Prompt prompt;
  std::vector<int32_t> ids;
  bool truncated = false;
};

// The tokens that a prompt may have so that the generated ones still fit.
int64_t prompt_room(const CaptureOptions& options, const ModelConfig& config, Progress& progress) {
  int64_t context = config.usable_positions();
  const bool windowed = context < config.max_positions;
  if (windowed && options.max_context > context)
    throw InputError(fmt::format("--max-context: expected at most {} tokens, found {}; the model ends at {}",
                                 context, options.max_context, config.usable_positions_reason()));
  if (options.max_context > context) {
    progress.say(
        fmt::format("--max-context: clamped to {} tokens ({})", context, config.usable_positions_reason()));
  } else if (options.max_context > 0) {
    context = options.max_context;
  }
  if (options.page_tokens > context)
    throw InputError(fmt::format("--page-size: expected a page within the context of {} tokens, found {}",
                                 context, options.page_tokens));
  if (options.max_tokens >= context)
    throw InputError(fmt::format("--max-tokens: expected less than the context of {} tokens, found {}",
                                 context, options.max_tokens));
  return context - options.max_tokens;
}

std::vector<EncodedPrompt> encode_all(std::vector<Prompt> prompts, const CaptureOptions& options,
                                      const Tokenizer& tokenizer, const ModelConfig& config,
                                      Progress& progress) {
  const int64_t room = prompt_room(options, config, progress);
  std::vector<EncodedPrompt> encoded;
  int64_t cut = 0;
  for (Prompt& prompt : prompts) {
    EncodedPrompt entry{std::move(prompt), {}, false};
    entry.ids = options.chat ? tokenizer.encode_chat(entry.prompt.text) : tokenizer.encode(entry.prompt.text);
    if (entry.ids.empty())
      throw InputError(fmt::format("prompt {}/{}: the tokenizer makes no token of it", entry.prompt.set,
                                   entry.prompt.name));
    if (static_cast<int64_t>(entry.ids.size()) > room) {
      // Cutting at the last position is what users expect; a window of attention is no such limit.
      if (config.usable_positions() < config.max_positions && options.max_context == 0)
        throw InputError(
            fmt::format("prompt {}/{}: expected at most {} tokens, found {}; the model ends at {} (cut "
                        "prompts with --max-context {})",
                        entry.prompt.set, entry.prompt.name, room, entry.ids.size(),
                        config.usable_positions_reason(), config.usable_positions()));
      entry.ids.resize(static_cast<std::size_t>(room));
      entry.truncated = true;
      ++cut;
    }
    encoded.push_back(std::move(entry));
  }
  if (cut > 0) progress.say(fmt::format("{} of {} prompts were cut to {} tokens", cut, encoded.size(), room));
  return encoded;
}

void check_room(const std::vector<EncodedPrompt>& prompts, const CaptureOptions& options,
                const ModelConfig& config, const RunDevice& device, const PageSink& sink) {
  std::vector<int64_t> lengths;
  lengths.reserve(prompts.size());
  for (const EncodedPrompt& prompt : prompts)
    lengths.push_back(static_cast<int64_t>(prompt.ids.size()) + options.max_tokens);
  std::sort(lengths.rbegin(), lengths.rend());
  int64_t live_tokens = 0, all_tokens = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    all_tokens += lengths[i];
    if (i < static_cast<std::size_t>(options.batch_size)) live_tokens += lengths[i];
  }
  const int64_t per_token = config.kv_bytes_per_token(options.kv_dtype, options.kv_dtype);
  const auto check = [&](int64_t needed, int64_t available, const char* what) {
    if (needed > available)
      throw InputError(
          fmt::format("these prompts need about {} MiB of {}, {} MiB are free; use --limit, "
                      "--max-context or --batch-size",
                      needed >> 20, what, available >> 20));
  };
  const bool in_memory = sink.keeps_pages_in_memory();
  // On a device the pages of one more prompt may be on their way to the sink.
  const int64_t live = per_token * (live_tokens + (device.ops && !lengths.empty() ? lengths.front() : 0));
  if (device.ops) check(live, device.ops->memory().free_bytes, "the GPU's memory");
  check((device.ops ? 0 : live) + (in_memory ? per_token * all_tokens : 0), host_memory().available_bytes,
        "memory");
  if (!in_memory) check(per_token * all_tokens, sink.free_bytes(), "disk");
}

struct CacheFacts {
  int64_t tokens = 0;  // of all prompts, generated ones included
  ByteLedger fullest;  // the ledger when most bytes were held; sequences that ended are freed
};

ordered_json cache_json(const CacheFacts& facts, const CaptureOptions& options, const KvCacheOptions& cache) {
  const ByteLedger& ledger = facts.fullest;
  const int64_t token_values = int64_t{2} * cache.layers * cache.kv_heads * cache.head_dim;
  const int64_t fullest_values = ledger.payload / dtype_bytes(options.kv_dtype);
  return {{"page_tokens", options.page_tokens},
          {"page_bytes", cache.k_codec->bytes(cache.page_tokens, cache.head_dim)},
          // Without RoPE every basis is the same numbers.
          {"key_basis", key_basis_name(cache.rope ? options.key_basis : KeyBasis::kPlain)},
          {"values", facts.tokens * token_values},
          {"dense_f16_bytes", facts.tokens * token_values * 2},
          {"fullest_tokens", fullest_values / token_values},
          {"fullest_dense_f16_bytes", fullest_values * 2},
          {"ledger", ledger_json(ledger)},
          {"compression", ledger.held() > 0
                              ? static_cast<double>(fullest_values * 2) / static_cast<double>(ledger.held())
                              : 0.0}};
}

// Decodes all prompts and feeds the sink; fills in what happened to each prompt.
class CaptureLoop {
 public:
  CaptureLoop(const CaptureOptions& options, Decoder& decoder, KvCache& cache, PageSink& sink,
              Progress& progress)
      : options_(options), decoder_(decoder), cache_(cache), sink_(sink), progress_(progress) {}

  GenerateStats run(const std::vector<EncodedPrompt>& prompts) {
    std::vector<std::vector<int32_t>> ids;
    int64_t total = 0;
    for (const EncodedPrompt& prompt : prompts) {
      ids.push_back(prompt.ids);
      total += static_cast<int64_t>(prompt.ids.size()) + options_.max_tokens;
    }
    GenerateOptions generation;
    generation.max_tokens = options_.max_tokens;
    generation.batch_size = options_.batch_size;
    progress_.stage("decode", total, "tokens");
    GenerateCallbacks callbacks;
    callbacks.on_progress = [&](const GenerateProgress& now) {
      progress_.update(now.prompt_tokens + now.generated_tokens);
      note_ledger();
    };
    callbacks.on_finished = [&](std::size_t index, SequenceId sequence, const Generation& generated) {
      note_ledger();
      finish_prompt(prompts[index], index, sequence, static_cast<int64_t>(generated.tokens.size()));
    };
    const GenerateResult result = generate(decoder_, cache_, ids, generation, callbacks);
    wait_for_copies();
    progress_.finish();
    return result.stats;
  }

  const CacheFacts& facts() const { return facts_; }
  const ordered_json& prompts_json() const { return prompts_json_; }

 private:
  void note_ledger() {
    const ByteLedger now = cache_.ledger();
    if (now.held() >= facts_.fullest.held()) facts_.fullest = now;
  }

  void finish_prompt(const EncodedPrompt& prompt, std::size_t index, SequenceId sequence, int64_t generated) {
    KVA_CHECK(index == prompts_json_.size(), "prompts finish in order");
    const CapturedPrompt captured{.set = prompt.prompt.set,
                                  .name = prompt.prompt.name,
                                  .tokens = cache_.tokens(sequence),
                                  .pages = cache_.sealed_pages(sequence),
                                  .generated = generated};
    facts_.tokens += captured.tokens;
    progress_.detail(fmt::format("{}/{}: {} tokens, {} of them generated, {} pages", captured.set,
                                 captured.name, captured.tokens, captured.generated, captured.pages));
    hand_over(captured, sequence);
    prompts_json_.push_back({{"set", captured.set},
                             {"name", captured.name},
                             {"tokens", captured.tokens},
                             {"generated", captured.generated},
                             {"pages", captured.pages},
                             {"truncated", prompt.truncated},
                             {"hash", text_hash(prompt.prompt.text)}});
  }

  // Pages on a device are copied and written while it goes on with the next prompts; here the host's threads
  // would only take turns.
  void hand_over(const CapturedPrompt& captured, SequenceId sequence) {
    if (!cache_.options().backend->device()) return sink_.add_prompt(captured, cache_, sequence);
    wait_for_copies();
    copied_ = cache_.snapshot(sequence);
    copying_ = std::async(std::launch::async, [this, captured] { sink_.add_prompt(captured, *copied_); });
  }
  void wait_for_copies() {
    if (copying_.valid()) copying_.get();
    copied_.reset();
  }

  const CaptureOptions& options_;
  Decoder& decoder_;
  KvCache& cache_;
  PageSink& sink_;
  Progress& progress_;
  CacheFacts facts_;
  ordered_json prompts_json_ = ordered_json::array();
  std::unique_ptr<PageSnapshot> copied_;
  std::future<void> copying_;  // of them; waits for its thread where it is destroyed
};

ordered_json sets_json(const ordered_json& prompts) {
  ordered_json sets = ordered_json::array();
  for (const ordered_json& prompt : prompts) {
    if (sets.empty() || sets.back()["name"] != prompt["set"])
      sets.push_back({{"name", prompt["set"]}, {"prompts", 0}, {"tokens", 0}, {"pages", 0}});
    ordered_json& set = sets.back();
    set["prompts"] = set["prompts"].get<int64_t>() + 1;
    set["tokens"] = set["tokens"].get<int64_t>() + prompt["tokens"].get<int64_t>();
    set["pages"] = set["pages"].get<int64_t>() + prompt["pages"].get<int64_t>();
  }
  return sets;
}

ordered_json timing_json(double load_s, const GenerateStats& stats) {
  return {{"load_s", load_s},
          {"prefill_s", stats.prefill_s},
          {"prefill_tokens", stats.prompt_tokens},
          {"prefill_tokens_per_s", rate(stats.prompt_tokens, stats.prefill_s)},
          {"decode_s", stats.decode_s},
          {"decode_tokens", stats.generated_tokens},
          {"decode_tokens_per_s", rate(stats.generated_tokens, stats.decode_s)}};
}

}  // namespace

ordered_json ledger_json(const ByteLedger& ledger) {
  return {{"payload", ledger.payload}, {"scales", ledger.scales}, {"side", ledger.side},
          {"tables", ledger.tables},   {"slack", ledger.slack},   {"workspace", ledger.workspace},
          {"peak", ledger.peak},       {"held", ledger.held()},   {"beside", ledger.beside}};
}

ordered_json options_json(const CaptureOptions& options) {
  return {{"model", options.model},
          {"weights", options.weights},
          {"device", options.device.name},
          {"chat", options.chat},
          {"max_tokens", options.max_tokens},
          {"max_context", options.max_context},
          {"batch_size", options.batch_size},
          {"page_size", options.page_tokens},
          {"kv_dtype", dtype_name(options.kv_dtype)},
          {"key_basis", key_basis_name(options.key_basis)},
          {"limit", options.prompts.limit}};
}

ordered_json run_capture(const CaptureOptions& options, PageSink& sink, ThreadPool& pool,
                         Progress& progress) {
  const auto load_start = Clock::now();
  const auto say = [&progress](const std::string& line) { progress.say(line); };
  // Cheap things first, so that a mistake is told before a model is fetched or read.
  RunDevice device = open_device(options.device, say);
  std::vector<Prompt> given = load_prompts(options.prompts);
  const FoundModel found = open_model(options);
  progress.stage("load", 0, "");
  const std::vector<EncodedPrompt> prompts =
      encode_all(std::move(given), options, found.tokenizer, found.config, progress);
  const auto needs = [&](const RunDevice& chosen) {
    check_cache_runs(
        chosen, cache_options_for(found.config, options.page_tokens, options.kv_dtype, options.key_basis));
  };
  device = settled(std::move(device), options.device, needs, say);
  check_room(prompts, options, found.config, device, sink);
  LoadedModel loaded = load_model(found, options, device, pool, progress);
  Decoder& decoder = loaded.decoder;
  const double load_s = seconds_since(load_start);

  const KvCacheOptions cache_options =
      decoder.cache_options(options.page_tokens, options.kv_dtype, options.key_basis);
  KvCache cache(cache_options, pool);
  sink.begin(cache_options, options.kv_dtype);
  CaptureLoop loop(options, decoder, cache, sink, progress);
  const GenerateStats stats = loop.run(prompts);

  ordered_json facts;
  facts["model"] =
      model_json(found, loaded, found.config.kv_bytes_per_token(options.kv_dtype, options.kv_dtype));
  if (options.chat) facts["model"]["chat_template"] = found.tokenizer.chat_template_name();
  facts["sets"] = sets_json(loop.prompts_json());
  facts["prompts"] = loop.prompts_json();
  facts["cache"] = cache_json(loop.facts(), options, cache_options);
  facts["cache"]["device_memory"] = device_memory_json(device);
  facts["timing"] = timing_json(load_s, stats);
  facts["recipe"] = fmt::format("dense({})", dtype_name(options.kv_dtype));
  facts["options"] = options_json(options);
  facts["device"] = device.name();
  return facts;
}

}  // namespace kva
