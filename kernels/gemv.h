// The memory-bound half of kernels/matmul.h, with the SIMD the machine has.
#pragma once

#include <cstdint>

#include "kernels/matmul.h"

namespace kva {

// out(r, n) = bias[n] + x(r, :) · weights(n, :) for n in [first, first + count) and all rows of x, which are
// few. Each dot product adds in an order that depends on x.cols alone.
void few_rows_product(MatView<const float> x, const LinearOp& op, int64_t first, int64_t count);

}  // namespace kva
