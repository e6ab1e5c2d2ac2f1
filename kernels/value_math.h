// Single numbers between f32 and what pages store, for CPU and CUDA alike: the same bits on both. The names
// that other code calls are in kernels/dtype.h and kernels/fp8.h.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/fp8.h"
#include "kernels/host_device.h"

namespace kva {

KVA_HOST_DEVICE inline uint32_t bits_of(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  return std::bit_cast<uint32_t>(value);
#endif
}

KVA_HOST_DEVICE inline uint64_t bits_of(double value) {
#if defined(__CUDA_ARCH__)
  return static_cast<uint64_t>(__double_as_longlong(value));
#else
  return std::bit_cast<uint64_t>(value);
#endif
}

KVA_HOST_DEVICE inline float float_of(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}

KVA_HOST_DEVICE inline float f16_value(uint16_t code) {
#if defined(__CUDA_ARCH__)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(code));
  return value;
#else
  const uint32_t sign = static_cast<uint32_t>(code & 0x8000u) << 16;
  const uint32_t exponent = (code >> 10) & 0x1fu;
  const uint32_t mantissa = code & 0x3ffu;
  if (exponent == 0x1fu) return float_of(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return float_of(sign | ((exponent + 112u) << 23) | (mantissa << 13));
#endif
}

// Rounds to nearest even, overflows to infinity, keeps subnormals; NaN becomes a quiet one of its sign.
KVA_HOST_DEVICE inline uint16_t f16_code(float value) {
  const uint32_t bits = bits_of(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  // 65520 is halfway between the largest half and the next step: it and everything above round to infinity.
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 lines the value up so that the float adder itself rounds to the half's last bit.
    const float shifted = float_of(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (bits_of(shifted) - 0x3f000000u));
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

KVA_HOST_DEVICE inline float bf16_value(uint16_t code) { return float_of(static_cast<uint32_t>(code) << 16); }

KVA_HOST_DEVICE inline uint16_t bf16_code(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

KVA_HOST_DEVICE inline float fp8_value(uint8_t code, Fp8 type) {
  if (type == Fp8::kE5M2) return f16_value(static_cast<uint16_t>(code << 8));
  const uint32_t magnitude = code & 0x7fu;
  const uint32_t sign = (code & 0x80u) << 8;
  if (magnitude == 0x7f) return f16_value(static_cast<uint16_t>(sign | 0x7e00));
  // An f16 has one more bit of exponent, and a bias that is larger by 8.
  return 256.0f * f16_value(static_cast<uint16_t>(sign | (magnitude << 7)));
}

KVA_HOST_DEVICE inline uint8_t fp8_code(float value, Fp8 type) {
  const int mantissa_bits = type == Fp8::kE4M3 ? 3 : 2;
  const int smallest = type == Fp8::kE4M3 ? -6 : -14;  // exponent of the smallest normal number
  const uint32_t largest = type == Fp8::kE4M3 ? 0x7e : 0x7b;
  const uint32_t sign = (bits_of(value) >> 24) & 0x80u;
  const uint32_t magnitude = bits_of(value) & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint8_t>(sign | (type == Fp8::kE4M3 ? 0x7fu : 0x7eu));
  const float size = float_of(magnitude);
  if (size >= fp8_value(static_cast<uint8_t>(largest), type)) return static_cast<uint8_t>(sign | largest);
  const int written = static_cast<int>(magnitude >> 23) - 127;
  const int exponent = written > smallest ? written : smallest;
  // The spacing of the numbers around it is 2^(exponent - mantissa_bits). Adding 2^23 leaves whole steps,
  // halves rounded to even; codes are as even as their significands.
  const float unit = float_of(static_cast<uint32_t>(127 + mantissa_bits - exponent) << 23);
  const uint32_t steps = bits_of(size * unit + 0x1p23f) - bits_of(0x1p23f);
  // Steps of 2^mantissa_bits carry into the exponent by themselves.
  return static_cast<uint8_t>(sign | ((static_cast<uint32_t>(exponent - smallest) << mantissa_bits) + steps));
}

// Number i of a run stored in `type`.
KVA_HOST_DEVICE inline float stored_value(const void* stored, DType type, int64_t i) {
  if (type == DType::kF32) return static_cast<const float*>(stored)[i];
  const uint16_t code = static_cast<const uint16_t*>(stored)[i];
  return type == DType::kF16 ? f16_value(code) : bf16_value(code);
}

KVA_HOST_DEVICE inline void store_value(float value, DType type, void* stored, int64_t i) {
  if (type == DType::kF32)
    static_cast<float*>(stored)[i] = value;
  else
    static_cast<uint16_t*>(stored)[i] = type == DType::kF16 ? f16_code(value) : bf16_code(value);
}

}  // namespace kva
