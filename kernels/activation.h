// Activation functions of feed-forward layers, in place, within about 1e-6 relative of the exact function
// (where the result is not lost against 1).
#pragma once

#include <cstdint>

#include "kernels/views.h"

namespace kva {

enum class Activation : uint8_t {
  kRelu,
  kGeluTanh,  // 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x³))), "gelu_new" (arXiv 1606.08415)
  kGeluErf,   // 0.5 x (1 + erf(x / sqrt 2)), "gelu"
  kSilu,      // x / (1 + exp(-x))
};

// x = f(x).
void activate(Activation activation, MatView<float> x);

// x = f(x) * up, element by element (SwiGLU, arXiv 2002.05202); up has x's shape.
void activate_gated(Activation activation, MatView<float> x, MatView<const float> up);

// x += y, element by element.
void add_rows(MatView<float> x, MatView<const float> y);

}  // namespace kva
