// Products whose sums are the same wherever they are taken: what is stored follows from them.
#pragma once

#include "kernels/views.h"

namespace kva {

// out(t, v) = rows row t · vectors row v, rounded to f32 once. vectors holds f16 numbers: so a product of two
// numbers is exact in f64, where they are added up in their order. The same bits with any instruction set,
// and as project_rows() (kernels/codebook_lanes.h) on a device. rows: [n, k]; vectors: [m, k]; out: [n, m],
// apart from both.
void exact_products(MatView<const float> rows, MatView<const float> vectors, MatView<float> out);

}  // namespace kva
