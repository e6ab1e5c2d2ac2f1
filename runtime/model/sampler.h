// Choosing the next token from logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/random.h"

namespace kva {

struct SamplerOptions {
  double temperature = 0.0;  // 0 takes the most likely token; >= 0
  int64_t top_k = 0;         // only so many of the most likely tokens; 0 for all
  double top_p = 1.0;        // only the most likely tokens that together reach this probability; in (0, 1]
  uint64_t seed = 0;
};

// What decides a token beside its logits.
struct TokenChoice {
  double temperature = 0.0;
  int64_t top_k = 0;
  double top_p = 1.0;
  double uniform = 0.0;  // in [0, 1); of no use at temperature 0
};

// One sequence's sampler. Tokens are ordered by logit, equal ones by id; temperature applies first, then
// top-k, then top-p (the token that crosses it is kept), then one uniform number picks. Probabilities are
// f64, and summed as a device does it (kernels/sampling_lanes.h), which chooses the same tokens.
class Sampler {
 public:
  // Throws InputError for options out of range.
  explicit Sampler(const SamplerOptions& options);

  // logits: [vocab]. Throws InputError where they hold no finite maximum.
  int32_t pick(std::span<const float> logits);

  // The next choice, for logits that are elsewhere: where they are, it gives what pick() would.
  TokenChoice next();

  // What a choice gives for logits; throws as pick().
  int32_t chosen(std::span<const float> logits, const TokenChoice& choice);

 private:
  const int32_t* ordered(std::span<const float> logits, const TokenChoice& choice);

  SamplerOptions options_;
  SplitMix64 random_;
  std::vector<int32_t> order_;
};

// Throws the InputError for a logit of the token that is NaN or +inf.
[[noreturn]] void fail_at_logit(int64_t token);

// The most likely token, the lowest id among equals.
int32_t most_likely(std::span<const float> logits);

}  // namespace kva
