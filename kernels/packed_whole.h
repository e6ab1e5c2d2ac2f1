// Products with the packed pages that decoding reads most, without tables or copies of them: codes of 8, 4 or
// 2 bits that are numbers themselves, one group to a row or column, and rows that vectors of lanes cover
// without a rest.
#pragma once

#include "kernels/packed.h"
#include "kernels/views.h"

namespace kva {

// out = left · matrix of packed rows, or, with `add`, out += that. left: [n, packed rows]; out: [n, packed
// columns]; scratch: packed_scratch() floats. False, and nothing done, for pages of another kind. Which kind
// a page is follows from its shape and the processor alone.
bool whole_product(const PackedPage& page, MatView<const float> left, bool add, float* scratch,
                   MatView<float> out);

// Floats of scratch for left rows of `rows` numbers.
constexpr int64_t whole_scratch(int64_t left, int64_t rows) {
  return left * (rows + PackedShape::kLanes);  // whole vectors are loaded from any row on
}

}  // namespace kva
