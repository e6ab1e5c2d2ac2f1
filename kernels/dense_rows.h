// Dot products with, and weighted sums of, rows of f32, f16 or bf16 values; the stored values are widened in
// registers, all arithmetic is f32. Every result is summed in an order that depends on the row's length
// alone.
#pragma once

#include <cstddef>

#include "kernels/dtype.h"
#include "kernels/views.h"

namespace kva {

// scores(q, t) = queries row q · stored row t. stored: [scores.cols, queries.cols], contiguous. ahead: as
// many stored rows that are read soon, fetched meanwhile; null: none.
void dense_scores(MatView<const float> queries, const void* stored, DType type, MatView<float> scores,
                  const std::byte* ahead = nullptr);

// out row q += sum over t of weights(q, t) * stored row t. stored: [weights.cols, out.cols], contiguous.
void dense_accumulate(MatView<const float> weights, const void* stored, DType type, MatView<float> out,
                      const std::byte* ahead = nullptr);

}  // namespace kva
