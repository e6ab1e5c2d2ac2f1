#include "kernels/fp8.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/dtype.h"

namespace kva {

uint8_t fp8_from_f32(float value, Fp8 type) {
  const int mantissa_bits = type == Fp8::kE4M3 ? 3 : 2;
  const int smallest = type == Fp8::kE4M3 ? -6 : -14;  // exponent of the smallest normal number
  const uint32_t largest = type == Fp8::kE4M3 ? 0x7e : 0x7b;
  const uint32_t sign = (std::bit_cast<uint32_t>(value) >> 24) & 0x80u;
  if (std::isnan(value)) return static_cast<uint8_t>(sign | (type == Fp8::kE4M3 ? 0x7fu : 0x7eu));
  const float size = std::abs(value);
  if (size >= f32_from_fp8(static_cast<uint8_t>(largest), type)) return static_cast<uint8_t>(sign | largest);
  // The spacing of the numbers around it; nearbyint() rounds halves to even, and codes are as even as their
  // significands.
  const int exponent = std::max(size > 0.0f ? std::ilogb(size) : smallest, smallest);
  const auto steps = static_cast<uint32_t>(std::nearbyint(std::ldexp(size, mantissa_bits - exponent)));
  // Steps of 2^mantissa_bits carry into the exponent by themselves.
  return static_cast<uint8_t>(sign | ((static_cast<uint32_t>(exponent - smallest) << mantissa_bits) + steps));
}

float f32_from_fp8(uint8_t code, Fp8 type) {
  if (type == Fp8::kE5M2) return f32_from_f16(static_cast<uint16_t>(code << 8));
  const uint32_t magnitude = code & 0x7fu;
  const uint32_t sign = (code & 0x80u) << 8;
  if (magnitude == 0x7f) return f32_from_f16(static_cast<uint16_t>(sign | 0x7e00));
  // An f16 has one more bit of exponent, and a bias that is larger by 8.
  return 256.0f * f32_from_f16(static_cast<uint16_t>(sign | (magnitude << 7)));
}

}  // namespace kva
