// Which of some centroids is nearest to each of some points.
#pragma once

#include <cstdint>

#include "kernels/views.h"

namespace kva {

// nearest[p] = the first column of `centroids` with the largest closeness, x · c + bias, to row p of
// `points`; closeness[p] its value. With a bias of -|c|² / 2 that is the nearest one, at the squared distance
// |x|² - 2 closeness. points: [n, d]; centroids: [d, k], k >= 1; biases: [k]. Sums are in f32, in an order
// that depends on d alone.
void nearest_columns(MatView<const float> points, MatView<const float> centroids, const float* biases,
                     int32_t* nearest, float* closeness);

// The first c in [0, count) with the least squares[c] - 2 dots[c]; 0 where none is a number. count >= 1.
int64_t least_distance(const float* dots, const float* squares, int64_t count);

}  // namespace kva
