// Directions between two pages' tokens on the CPU (kernels/direction_math.h).
#pragma once

#include "kernels/views.h"

namespace kva {

// out row i = the direction between row i of `lower` and of `upper`, `share` of the way. All of one shape;
// out is neither of them.
void directions_between(MatView<const float> lower, MatView<const float> upper, double share,
                        MatView<float> out);

}  // namespace kva
