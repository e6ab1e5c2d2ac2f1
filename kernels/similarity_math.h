// The arithmetic of one page pair, shared by the CPU and CUDA kernels so that CPU tests exercise what the GPU
// runs. All similarities lie in [-1, 1]; NaN never leaves these functions when the inputs are finite.
#pragma once

#include <cstdint>

#include "kernels/host_device.h"

namespace kva {

// Similarities are summed as integers in units of 2^-24, so that a sum does not depend on its order.
inline constexpr float kFixedOne = 16777216.0f;

KVA_HOST_DEVICE inline float clamp_similarity(float value) {
  if (value > 1.0f) return 1.0f;
  return value < -1.0f ? -1.0f : value;
}

// x·y / (‖x‖‖y‖) from the dot product and 1/‖x‖, 1/‖y‖, where the inverse of a zero norm is given as 0: the
// similarity with a zero page is 0.
KVA_HOST_DEVICE inline float cosine_similarity(float dot, float inverse_x, float inverse_y) {
  return clamp_similarity((dot * inverse_x) * inverse_y);
}

// ‖x − y‖² from ‖x‖², ‖y‖² and x·y. Where it is small beside ‖x‖² + ‖y‖² the subtraction cancels: see
// nearly_equal().
KVA_HOST_DEVICE inline float squared_distance(float squared_x, float squared_y, float dot) {
  const float value = (squared_x + squared_y) - 2.0f * dot;
  return value > 0.0f ? value : 0.0f;
}

// True where squared_distance() from a product is too inexact and the distance has to be computed from the
// pages themselves. With an f32 product, good to 1e-6, others are good to 2e-5 of the norm.
inline constexpr float kNearlyEqual = 1e-3f;
KVA_HOST_DEVICE inline bool nearly_equal(float squared_x, float squared_y, float squared_distance_xy,
                                         float near = kNearlyEqual) {
  return squared_distance_xy <= near * (squared_x + squared_y);
}

// 1 − ‖x − y‖ / max(‖x‖, ‖y‖); 1 for two zero pages.
KVA_HOST_DEVICE inline float l2_similarity(float distance, float norm_x, float norm_y) {
  const float larger = norm_x > norm_y ? norm_x : norm_y;
  return larger > 0.0f ? clamp_similarity(1.0f - distance / larger) : 1.0f;
}

// 1 − differing / total, of total sign bits. One rounding, so every machine gives the same value.
KVA_HOST_DEVICE inline float hamming_similarity(uint32_t differing, uint32_t total) {
  return static_cast<float>(total - differing) / static_cast<float>(total);
}

// |A∩B| / |A∪B| of two sets of `size` >= 1 elements each.
KVA_HOST_DEVICE inline float jaccard_similarity(uint32_t common, uint32_t size) {
  return static_cast<float>(common) / static_cast<float>(2 * size - common);
}

// Equal bins over [low, 1]; 1 falls into the last one. scale = bins / (1 - low).
KVA_HOST_DEVICE inline int32_t histogram_bin(float value, float low, float scale, int32_t bins) {
  const int32_t bin = static_cast<int32_t>((value - low) * scale);
  return bin < bins ? bin : bins - 1;
}

}  // namespace kva
