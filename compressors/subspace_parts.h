// What fits of a subspace share, wherever their products are made.
#pragma once

#include <cstdint>
#include <span>

#include "compressors/subspace.h"
#include "kernels/views.h"

namespace kva {

// How many of the falling squared singular values the size asks for; one more than there are where their sum
// does not hold the energy. total: the squared length of all rows.
int64_t rank_of(std::span<const double> squares, double total, SubspaceSize size);

// vectors: orthonormal ones, one a row, those of the first `squares`.
Subspace subspace_of(std::span<const double> squares, double total, MatView<const double> vectors);

}  // namespace kva
