// A cache under one recipe, stepped by the decoder and compressed after every step: what a quality run and a
// timing run look at. It holds one sequence at a time, or several copies of one that are decoded together.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "compressors/compressor.h"
#include "compressors/recipe.h"
#include "kernels/parallel.h"
#include "reports/calibration.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/model/decoder.h"

namespace kva {

// What all caches of a run share.
struct CacheSetup {
  Decoder& decoder;
  Calibration& calibration;
  int page_tokens;
  uint64_t seed;
  ThreadPool& pool;
  std::shared_ptr<const TokenClasses> classes = nullptr;  // of the model's tokenizer
};

// Used by one thread at a time; what the set-up refers to outlives it.
class EvaluatedCache {
 public:
  // Fits the recipe's methods to the calibration text where they learn. Throws InputError where the recipe
  // does not suit the model, Interrupted.
  EvaluatedCache(const Recipe& recipe, const CacheSetup& setup);

  // A new, empty sequence; the one before is freed. Of several copies each gets all tokens, in one batch.
  void begin(int64_t copies = 1);
  // Whether the first copy's attention is mapped (KvCache::map_attention()), of sequences begun from now on.
  void map_attention(bool on) { mapped_ = on; }
  // Frees it: what is left is what its methods learned.
  void end();

  // Adds tokens to the sequence and lets the recipe act. Row i of logits [logit_rows.size(), vocab] becomes
  // the logits after token logit_rows[i] of these (ascending), those of the first copy. Throws InputError,
  // Interrupted.
  void step(std::span<const int32_t> tokens, std::span<const int64_t> logit_rows, MatView<float> logits);

  // A prompt of these tokens comes, in steps, and then end_prompt().
  void begin_prompt(std::span<const int32_t> prompt);
  // A prompt is complete: what follows reads it from the cache.
  void end_prompt();

  int64_t tokens() const { return cache_.tokens(sequence()); }
  SequenceId sequence() const { return sequences_.front(); }
  const KvCache& cache() const { return cache_; }
  CompressorStats stats() const { return compressor_.stats(); }

 private:
  Decoder& decoder_;
  KvCache cache_;
  Compressor compressor_;
  std::vector<SequenceId> sequences_;  // the copies
  bool mapped_ = false;
};

}  // namespace kva
