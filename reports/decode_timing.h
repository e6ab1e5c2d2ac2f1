// How fast a decoder runs on one recipe's cache, alone: prefill, then greedy decoding at a context,
// compression included.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compressors/recipe.h"
#include "reports/evaluated_cache.h"
#include "reports/progress.h"

namespace kva {

struct TimingOptions {
  int64_t context = 2048;      // tokens in the cache when decoding ends
  int64_t decode_tokens = 32;  // of those, generated one by one; less where the context is short
  int64_t chunk_tokens = 512;  // of prefill
  int runs = 3;                // measured, after one that warms up
};

// Medians over the runs; step times over all their steps.
struct DecodeTiming {
  int64_t context = 0;
  int64_t decode_tokens = 0;  // of a run
  int64_t chunk_tokens = 0;
  int runs = 0;
  double prefill_tokens_per_s = 0;
  double decode_tokens_per_s = 0;
  double first_token_ms = 0;  // from the empty cache to the first generated token
  double step_median_ms = 0;
  double step_p99_ms = 0;
};

// One result a recipe. `text` has at least options.context tokens. The recipes take turns, so that a machine
// that slows down does so for all; only one has a sequence at a time. Throws InputError, Interrupted.
std::vector<DecodeTiming> time_decoding(std::span<const int32_t> text, const std::vector<Recipe>& recipes,
                                        const TimingOptions& options, const CacheSetup& setup,
                                        Progress& progress);

// The largest resident size of this process so far.
int64_t peak_process_bytes();

}  // namespace kva
