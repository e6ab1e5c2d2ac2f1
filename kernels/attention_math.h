// The arithmetic of attention's partial states (kernels/attention.h) row by row, for CPU and CUDA alike.
#pragma once

#include <cmath>
#include <limits>

#include "kernels/host_device.h"

namespace kva {

// The maximum of a state that has seen no key.
inline constexpr float kNoScore = -std::numeric_limits<float>::infinity();

// By what o and l of a state are multiplied when its maximum rises.
KVA_HOST_DEVICE inline float raised_by(float before, float max) {
  return before == kNoScore || before == max ? 1.0f : expf(before - max);
}

// exp(score - max). With every key masked so far there is no maximum to subtract; any finite one gives 0.
KVA_HOST_DEVICE inline float score_weight(float score, float max) {
  return expf(score - (max == kNoScore ? 0.0f : max));
}

// By what a state with the maximum `of_state` counts in a sum of states whose largest maximum is `max`.
KVA_HOST_DEVICE inline float state_share(float of_state, float max) {
  return of_state == kNoScore ? 0.0f : expf(of_state - max);
}

KVA_HOST_DEVICE inline float finished(float value, float sum) { return sum == 0.0f ? 0.0f : value / sum; }

// How many tokens of a page that starts at `start` a query at `position` sees.
KVA_HOST_DEVICE inline int visible_tokens(int position, int start, int tokens) {
  const int seen = position + 1 - start;
  return seen < 0 ? 0 : seen < tokens ? seen : tokens;
}

}  // namespace kva
