// Transposes matrices that fit in a cache.
#pragma once

#include "kernels/views.h"

namespace kva {

// to(c, r) = from(r, c). to: [from.cols, from.rows], apart from `from`.
void transpose(MatView<const float> from, MatView<float> to);

}  // namespace kva
