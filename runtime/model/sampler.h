// Choosing the next token from logits.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "kernels/random.h"

namespace kva {

struct SamplerOptions {
  double temperature = 0.0;  // 0 takes the most likely token; >= 0
  int64_t top_k = 0;         // only so many of the most likely tokens; 0 for all
  double top_p = 1.0;        // only the most likely tokens that together reach this probability; in (0, 1]
  uint64_t seed = 0;
};

// One sequence's sampler. Tokens are ordered by logit, equal ones by id; temperature applies first, then
// top-k, then top-p (the token that crosses it is kept), then one uniform number picks. Probabilities are
// f64.
class Sampler {
 public:
  // Throws InputError for options out of range.
  explicit Sampler(const SamplerOptions& options);

  // logits: [vocab]. Throws InputError where they hold no finite maximum.
  int32_t pick(std::span<const float> logits);

 private:
  SamplerOptions options_;
  SplitMix64 random_;
  std::vector<std::pair<float, int32_t>> candidates_;
  std::vector<double> weights_;
};

// The most likely token, the lowest id among equals.
int32_t most_likely(std::span<const float> logits);

}  // namespace kva
