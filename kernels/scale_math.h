// The arithmetic of uniform quantization number by number, for CPU and CUDA alike: the same bytes on both.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/value_math.h"

namespace kva {

template <typename T>
KVA_HOST_DEVICE constexpr T smaller(T a, T b) {
  return b < a ? b : a;
}

// The smallest f16 that is not below a value >= 0 within its range.
KVA_HOST_DEVICE inline uint16_t f16_at_least(double value) {
  uint16_t bits = f16_code(static_cast<float>(value));
  if (static_cast<double>(f16_value(bits)) < value) ++bits;
  return bits;
}

struct StoredScale {
  uint16_t scale;
  uint16_t zero;  // of no use where symmetric
};

// Of a group whose numbers lie in [low, high], both within f16. Asymmetric: zero = f16(low), scale =
// (high - zero) / (2^bits - 1); symmetric: scale = max(-low, high) / (2^(bits-1) - 1); rounded up to f16. The
// sign of a 0 among the numbers shows nowhere.
KVA_HOST_DEVICE inline StoredScale stored_scale(float low, float high, int bits, bool symmetric) {
  if (symmetric) {
    const float largest = -low > high ? -low : high;
    return {f16_at_least(static_cast<double>(largest + 0.0f) / ((1 << (bits - 1)) - 1)), 0};
  }
  const uint16_t zero = f16_code(low + 0.0f);
  const double range = static_cast<double>(high) - static_cast<double>(f16_value(zero));
  return {f16_at_least((range > 0.0 ? range : 0.0) / ((1 << bits) - 1)), zero};
}

// The code of the number nearest to x; of two equally near ones the even one. Scale 0: the code of 0.
KVA_HOST_DEVICE inline uint32_t number_code(float x, float scale, float zero, int bits, bool symmetric) {
  const float offset = symmetric ? static_cast<float>(1 << (bits - 1)) : 0.0f;
  const float most = static_cast<float>((1 << bits) - 1);
  const float code = (scale > 0.0f ? rintf((x - zero) / scale) : 0.0f) + offset;
  return static_cast<uint32_t>(code < 0.0f ? 0.0f : code > most ? most : code);
}

}  // namespace kva
