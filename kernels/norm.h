// Normalisation of rows. weight, bias: [x.cols]; out has x's shape and may be x itself. Sums are f32 in an
// order that depends on x.cols alone.
#pragma once

#include "kernels/views.h"

namespace kva {

// (x - mean) / sqrt(variance + eps) * weight + bias (arXiv 1607.06450).
void layer_norm(MatView<const float> x, const float* weight, const float* bias, float eps,
                MatView<float> out);

// x / sqrt(mean(x²) + eps) * weight (arXiv 1910.07467).
void rms_norm(MatView<const float> x, const float* weight, float eps, MatView<float> out);

}  // namespace kva
