// The Walsh-Hadamard transform, for rotations that spread outliers over all coordinates (QuaRot, arXiv
// 2404.00456).
#pragma once

#include <cstdint>

#include "kernels/views.h"

namespace kva {

// Each row becomes row · H / sqrt(cols), H being Sylvester's matrix of order cols, a power of two. Its own
// inverse.
void hadamard_rows(MatView<float> rows);

}  // namespace kva
