// Products with single numbers of a matrix.
#pragma once

#include <cstdint>

#include "kernels/views.h"

namespace kva {

// Numbers of a page side that stand for themselves: values[i] of token tokens[i], channel channels[i].
struct SparseNumbers {
  const int32_t* tokens = nullptr;
  const int32_t* channels = nullptr;
  const float* values = nullptr;
  int64_t count = 0;
};

// scores(q, token) += queries(q, channel) * value for every number, in order.
void sparse_scores(MatView<const float> queries, const SparseNumbers& numbers, MatView<float> scores);

// out(q, channel) += weights(q, token) * value for every number, in order.
void sparse_accumulate(MatView<const float> weights, const SparseNumbers& numbers, MatView<float> out);

}  // namespace kva
