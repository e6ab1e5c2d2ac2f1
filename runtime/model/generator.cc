#include "runtime/model/generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "runtime/clock.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/kv/prefix_index.h"

namespace kva {
namespace {

struct Live {
  std::size_t prompt;
  SequenceId sequence;
  int64_t tokens;  // in the cache
  Sampler sampler;
  int32_t next;  // chosen, not yet stepped
  bool done;     // waits for earlier prompts to be handed over
};

class Run {
 public:
  Run(Decoder& decoder, KvCache& cache, const std::vector<std::vector<int32_t>>& prompts,
      const GenerateOptions& options, const GenerateCallbacks& callbacks)
      : decoder_(decoder),
        cache_(cache),
        prompts_(prompts),
        options_(options),
        callbacks_(callbacks),
        prefixes_(cache.options().page_tokens) {}

  GenerateResult all() {
    check();
    result_.generations.resize(prompts_.size());
    try {
      std::size_t next = 0;
      while (next < prompts_.size() || !live_.empty()) {
        while (next < prompts_.size() && static_cast<int64_t>(live_.size()) < options_.batch_size)
          start(next++);
        if (!live_.empty()) decode();
      }
    } catch (...) {
      for (const Live& sequence : live_) free(sequence.sequence);
      throw;
    }
    return std::move(result_);
  }

 private:
  void check() const {
    KVA_CHECK(options_.batch_size >= 1 && options_.chunk_tokens >= 1 && options_.max_tokens >= 0,
              "generation options out of range");
    const ModelConfig& config = decoder_.config();
    for (std::size_t i = 0; i < prompts_.size(); ++i) {
      const auto tokens = static_cast<int64_t>(prompts_[i].size());
      if (tokens == 0)
        throw InputError(fmt::format("prompt {}: expected at least one token, found none", i + 1));
      if (tokens > config.usable_positions())
        throw InputError(fmt::format("prompt {}: expected at most {} tokens, found {}; the model ends at {}",
                                     i + 1, config.usable_positions(), tokens,
                                     config.usable_positions_reason()));
    }
  }

  // Prefills a prompt alone, so that its chunks do not depend on its companions.
  void start(std::size_t prompt) {
    const auto begin = Clock::now();
    const std::vector<int32_t>& ids = prompts_[prompt];
    const auto count = static_cast<int64_t>(ids.size());
    const PrefixIndex::Match shared = shared_prefix(ids);
    live_.push_back({prompt, add_sequence(shared), shared.tokens, Sampler(options_.sampler), 0, false});
    Live& sequence = live_.back();
    if (callbacks_.listener) callbacks_.listener->begin_prompt(sequence.sequence, 0, ids);
    const int64_t rows[] = {(count - 1) % options_.chunk_tokens};
    while (sequence.tokens < count) {
      throw_if_interrupted();
      const int64_t size = std::min(options_.chunk_tokens, count - sequence.tokens);
      const bool last = sequence.tokens + size == count && options_.max_tokens > 0;
      const Batch batch{{{sequence.sequence, 0, size, sequence.tokens}}};
      const auto tokens =
          std::span(ids).subspan(static_cast<std::size_t>(sequence.tokens), static_cast<std::size_t>(size));
      Sampler* const sampler[] = {&sequence.sampler};
      const std::size_t wanted = last ? 1 : 0;
      decoder_.step(batch, tokens, cache_, std::span(rows, wanted), std::span(sampler, wanted),
                    std::span(&sequence.next, wanted));
      if (callbacks_.listener) callbacks_.listener->after_step(batch, tokens);
      sequence.tokens += size;
      progress_.prompt_tokens += size;
      result_.stats.prompt_tokens += size;
      report();
    }
    if (callbacks_.listener) callbacks_.listener->end_prompt(sequence.sequence);
    if (options_.share_prefixes) prefixes_.add(sequence.sequence, ids);
    result_.stats.prefill_s += seconds_since(begin);
    sequence.done = options_.max_tokens == 0 || !take(sequence);
    if (prompt == 0 && options_.max_tokens > 0) result_.stats.first_token_s = seconds_since(begin);
    hand_over();
  }

  // What of the prompt is in the cache already: whole chunks, so that the rest is cut as without it, and not
  // the last token, whose logits are wanted.
  PrefixIndex::Match shared_prefix(std::span<const int32_t> ids) const {
    if (!options_.share_prefixes) return {};
    PrefixIndex::Match match = prefixes_.find(ids.first(ids.size() - 1));
    match.tokens -= match.tokens % std::lcm(options_.chunk_tokens, int64_t{cache_.options().page_tokens});
    return match;
  }

  SequenceId add_sequence(const PrefixIndex::Match& shared) {
    if (shared.tokens == 0) return cache_.add_sequence();
    const SequenceId copy = cache_.fork_sequence(shared.sequence, shared.tokens);
    if (callbacks_.listener) callbacks_.listener->after_fork(shared.sequence, copy);
    progress_.prompt_tokens += shared.tokens;
    result_.stats.shared_tokens += shared.tokens;
    return copy;
  }

  void free(SequenceId sequence) {
    if (callbacks_.listener) callbacks_.listener->before_free(sequence);
    prefixes_.remove(sequence);
    cache_.free_sequence(sequence);
  }

  // One step of all live sequences.
  void decode() {
    throw_if_interrupted();
    const auto begin = Clock::now();
    Batch batch;
    std::vector<int32_t> tokens;
    std::vector<int64_t> rows;
    std::vector<Live*> stepped;
    std::vector<Sampler*> samplers;
    for (Live& sequence : live_) {
      if (sequence.done) continue;
      const auto row = static_cast<int64_t>(tokens.size());
      batch.spans.push_back({sequence.sequence, row, 1, sequence.tokens});
      tokens.push_back(sequence.next);
      rows.push_back(row);
      stepped.push_back(&sequence);
      samplers.push_back(&sequence.sampler);
    }
    std::vector<int32_t> chosen(tokens.size());
    decoder_.step(batch, tokens, cache_, rows, samplers, chosen);
    if (callbacks_.listener) callbacks_.listener->after_step(batch, tokens);
    result_.stats.decode_s += seconds_since(begin);
    ++result_.stats.decode_steps;
    for (std::size_t i = 0; i < stepped.size(); ++i) {
      ++stepped[i]->tokens;
      stepped[i]->next = chosen[i];
      stepped[i]->done = !take(*stepped[i]);
    }
    report();
    hand_over();
  }

  // Takes the token that was chosen; false where it is the sequence's last.
  bool take(Live& sequence) {
    Generation& generation = result_.generations[sequence.prompt];
    generation.tokens.push_back(sequence.next);
    ++result_.stats.generated_tokens;
    ++progress_.generated_tokens;
    const auto end = [&](FinishReason reason) { return generation.reason = reason, false; };
    const auto& ends = options_.end_tokens;
    const bool wanted = !callbacks_.on_token || callbacks_.on_token(sequence.prompt, sequence.next);
    if (std::find(ends.begin(), ends.end(), sequence.next) != ends.end()) return end(FinishReason::kEndToken);
    if (!wanted) return end(FinishReason::kStopped);
    if (static_cast<int64_t>(generation.tokens.size()) >= options_.max_tokens)
      return end(FinishReason::kLength);
    if (sequence.tokens >= decoder_.config().usable_positions()) return end(FinishReason::kContext);
    return true;
  }

  // Hands over what is done, in the order of the prompts.
  void hand_over() {
    while (!live_.empty() && live_.front().done) {
      const Live& sequence = live_.front();
      ++progress_.prompts_done;
      if (callbacks_.on_finished)
        callbacks_.on_finished(sequence.prompt, sequence.sequence, result_.generations[sequence.prompt]);
      free(sequence.sequence);
      live_.erase(live_.begin());
    }
  }

  void report() const {
    if (callbacks_.on_progress) callbacks_.on_progress(progress_);
  }

  Decoder& decoder_;
  KvCache& cache_;
  const std::vector<std::vector<int32_t>>& prompts_;
  const GenerateOptions& options_;
  const GenerateCallbacks& callbacks_;
  std::vector<Live> live_;
  PrefixIndex prefixes_;
  GenerateProgress progress_;
  GenerateResult result_;
};

}  // namespace

GenerateResult generate(Decoder& decoder, KvCache& cache, const std::vector<std::vector<int32_t>>& prompts,
                        const GenerateOptions& options, const GenerateCallbacks& callbacks) {
  return Run(decoder, cache, prompts, options, callbacks).all();
}

}  // namespace kva
