// Products with single numbers of a matrix.
#pragma once

#include <cstddef>
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

// Reads a list of `count` places (token * width + channel) of `bits` bits each, the first at the lowest bits
// of the first byte; places over `last` count as `last`. Four bytes from each place's first byte on are
// readable. bits: at most 24, and last + 1 <= 2^bits; 1 <= width.
void unpack_places(const std::byte* list, int bits, int64_t count, int64_t last, int64_t width,
                   int32_t* tokens, int32_t* channels);

// scores(q, token) += queries(q, channel) * value for every number, in order.
void sparse_scores(MatView<const float> queries, const SparseNumbers& numbers, MatView<float> scores);

// out(q, channel) += weights(q, token) * value for every number, in order.
void sparse_accumulate(MatView<const float> weights, const SparseNumbers& numbers, MatView<float> out);

}  // namespace kva
