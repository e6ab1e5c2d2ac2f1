// Runs a recipe on one cache: after each step it takes the pages whose turn has come through the pipelines of
// their cells and applies the plans. Attention then reads what is left.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "compressors/recipe.h"
#include "compressors/token_policy.h"
#include "kernels/parallel.h"
#include "runtime/kv/cache_listener.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/kv/page_set.h"

namespace kva {

struct CompressorStats {
  int64_t plans = 0;                 // applied
  int64_t sides = 0;                 // page sides encoded, aliased or rewritten
  int64_t values = 0;                // numbers they hold
  int64_t predicted_bytes = 0;       // what the plans said they would free, payload and scales
  int64_t freed_bytes = 0;           // what the ledger then showed
  double seconds = 0;                // spent planning and applying
  double observe_seconds = 0;        // spent on what steps asked to be told, within attention
  std::vector<std::string> remarks;  // what the user should know of the recipe on this model
  std::vector<std::pair<std::string, double>> counters;  // of the steps, by "method.name"
  std::vector<HeadDecision> decisions;  // of steps that treat heads differently, at the latest prompt's end
};

// Make the cache with cache_options(), call after_step() after every Decoder::step() and before_free() before
// a sequence is freed. Used by one thread at a time; cache and pool outlive it.
class Compressor : public CacheListener {
 public:
  // The recipe's key basis, and the type that pages fill in.
  static KvCacheOptions cache_options(const Recipe& recipe, KvCacheOptions of_decoder);

  // Whether the recipe wants prompts that begin alike to share their pages (dedup(prefix)): the caller's
  // part, GenerateOptions::share_prefixes.
  static bool shares_prefixes(const Recipe& recipe);

  // Throws InputError where the recipe names layers or heads that the cache does not have, or parameters that
  // do not fit it, for methods that go by classes of tokens where no `classes` are given, and for pages that
  // the device that holds the cache's cannot read.
  Compressor(const Recipe& recipe, KvCache& cache, ThreadPool& pool, uint64_t seed = 0,
             std::shared_ptr<const TokenClasses> classes = nullptr);
  ~Compressor() override;
  Compressor(const Compressor&) = delete;
  Compressor& operator=(const Compressor&) = delete;

  // Whether some step learns from a calibration text (nuq, pq): then fit() comes before the first step. The
  // sample is of the same model, page size and key basis.
  bool needs_sample() const;
  // Whether the sample should come with part_losses.
  bool wants_part_losses() const;
  void fit(const PageSet& sample);

  // Throws InputError, naming layer, head and side, where a page cannot be encoded (NaN).
  void after_step(const Batch& batch, std::span<const int32_t> tokens) override;
  void begin_prompt(SequenceId sequence, int64_t start, std::span<const int32_t> prompt) override;
  // The prompt is complete: steps with @prefill act on its full pages.
  void end_prompt(SequenceId sequence) override;
  // After KvCache::fork_sequence().
  void after_fork(SequenceId sequence, SequenceId copy) override;
  void before_free(SequenceId sequence) override;

  CompressorStats stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kva
