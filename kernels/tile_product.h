// Matrix products of tiles that one worker holds in its cache; single-threaded, f32.
#pragma once

#include "kernels/views.h"

namespace kva {

// out = a · bᵀ. a: [m, k], b: [n, k], out: [m, n].
void tile_product_transposed(MatView<const float> a, MatView<const float> b, MatView<float> out);

// out += a · b. a: [m, k], b: [k, n], out: [m, n].
void tile_product_add(MatView<const float> a, MatView<const float> b, MatView<float> out);

}  // namespace kva
