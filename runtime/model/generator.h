// Running prompts through a decoder: prefill in chunks, then step by step, several sequences at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "runtime/kv/cache_listener.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/model/decoder.h"
#include "runtime/model/sampler.h"

namespace kva {

struct GenerateOptions {
  int64_t max_tokens = 0;                // generated for each prompt; 0 only prefills
  int64_t batch_size = 1;                // sequences decoded together
  int64_t chunk_tokens = 512;            // of prefill
  std::vector<int32_t> end_tokens = {};  // generation ends after one of these; empty ignores them
  SamplerOptions sampler = {};           // every sequence starts from the same seed
  // A prompt that begins as one in the batch shares its pages, by whole chunks, and does not compute them;
  // its numbers are bit for bit those it would have computed, as long as nothing lossy happened to the pages.
  bool share_prefixes = false;
};

enum class FinishReason { kLength, kEndToken, kStopped, kContext };

struct Generation {
  std::vector<int32_t> tokens;  // an end token is the last of them
  FinishReason reason = FinishReason::kLength;
};

struct GenerateProgress {
  int64_t prompts_done = 0;
  int64_t prompt_tokens = 0;     // prefilled so far
  int64_t generated_tokens = 0;  // sampled so far
};

struct GenerateStats {
  int64_t prompt_tokens = 0;  // computed
  int64_t shared_tokens = 0;  // of prompts, found in the cache
  int64_t generated_tokens = 0;
  int64_t decode_steps = 0;
  double prefill_s = 0.0;
  double decode_s = 0.0;
  double first_token_s = 0.0;  // of the first prompt; 0 where nothing was generated
};

// All optional; called on the calling thread.
struct GenerateCallbacks {
  CacheListener* listener = nullptr;  // a compressor
  // A token was chosen; false ends the sequence (kStopped).
  std::function<bool(std::size_t prompt, int32_t token)> on_token = {};
  // After each chunk and each step.
  std::function<void(const GenerateProgress&)> on_progress = {};
  // The sequence is complete and still in the cache; afterwards it is freed. In the order of the prompts: one
  // that ends before an earlier prompt waits, and counts towards the batch.
  std::function<void(std::size_t prompt, SequenceId sequence, const Generation&)> on_finished = {};
};

struct GenerateResult {
  std::vector<Generation> generations;  // one a prompt, in order
  GenerateStats stats;
};

// Prefills each prompt (ids, at least one) into the cache and generates after it. The last generated token is
// chosen but not stepped, so the cache then holds prompt + generated - 1 tokens. A sequence's tokens do not
// depend on its companions. Throws InputError for an empty prompt or one over the model's positions (before
// any work), and Interrupted after Ctrl-C; its sequences are freed then. Generation ends with kContext where
// the positions do.
GenerateResult generate(Decoder& decoder, KvCache& cache, const std::vector<std::vector<int32_t>>& prompts,
                        const GenerateOptions& options, const GenerateCallbacks& callbacks = {});

}  // namespace kva
