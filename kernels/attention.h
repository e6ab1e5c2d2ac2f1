// Attention over some of the keys, as a state that merges: with m the running maximum of the scores,
// l = sum exp(score - m) and o = sum exp(score - m) * value, the states of disjoint key sets merge
// associatively (online softmax, arXiv 1805.02867; split keys as in FlashDecoding).
#pragma once

#include <cstdint>

#include "kernels/views.h"

namespace kva {

// The states of some query rows. A view; an empty state is m = -inf, l = 0, o = 0.
struct PartialState {
  MatView<float> values;  // o: [rows, head_dim]
  float* max = nullptr;   // m: [rows]
  float* sum = nullptr;   // l: [rows]
};

void clear(const PartialState& state);

// Takes in the scores of further keys: raises m, rescales l and o to it, adds to l, and turns the scores
// [rows, keys] into weights exp(score - m) in place. The caller then adds weights * values to o. A masked key
// has the score -inf and gets the weight 0; NaN stays NaN.
void softmax_update(MatView<float> scores, const PartialState& state);

// into = into + from. Merging with an empty state changes nothing.
void merge(const PartialState& into, const PartialState& from);

// totals[key] += sum over rows of exp(score - max[row]) / sum[row]: what each key got of the rows' attention,
// max and sum being those of the rows' final states. Rows of empty states (sum 0) add nothing.
void add_attention(MatView<const float> scores, const float* max, const float* sum, float* totals);

// out row = o / l; zeros for an empty state.
void finish(const PartialState& state, MatView<float> out);

}  // namespace kva
