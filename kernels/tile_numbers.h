// The 16-bit numbers of tensor cores, two in a register, and f32 numbers as sums of two such.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/value_math.h"

namespace kva {

KVA_HOST_DEVICE inline int leading_zeros(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __clz(static_cast<int>(bits));
#else
  return std::countl_zero(bits);
#endif
}

// u, below, is the most by which rounding a number within range moves it, as a share of it.
struct F16Numbers {
  // u = 2^-11: good enough for weights, of which no sum has more than their own number.
  static constexpr bool kSplitsWeights = false;
  KVA_HOST_DEVICE static float value(uint16_t code) { return f16_value(code); }
  KVA_HOST_DEVICE static uint32_t pack(float low, float high) {
#if defined(__CUDA_ARCH__)
    uint32_t packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#else
    return f16_code(low) | static_cast<uint32_t>(f16_code(high)) << 16;
#endif
  }
  // What is beyond the range becomes its end.
  KVA_HOST_DEVICE static uint32_t pack_clamped(float low, float high) {
#if defined(__CUDA_ARCH__)
    uint32_t packed;
    asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#else
    const auto clamped = [](float x) { return x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x; };
    return pack(clamped(low), clamped(high));
#endif
  }
};

struct BF16Numbers {
  static constexpr bool kSplitsWeights = true;  // u = 2^-8
  KVA_HOST_DEVICE static float value(uint16_t code) { return bf16_value(code); }
  KVA_HOST_DEVICE static uint32_t pack(float low, float high) {
#if defined(__CUDA_ARCH__)
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#else
    return bf16_code(low) | static_cast<uint32_t>(bf16_code(high)) << 16;
#endif
  }
};

// Two numbers as sums of `kCount` terms each: terms[i] has term i of `low` and of `high`. What is left after
// n terms is u^n of the number at most, or half of the type's least number.
template <class Numbers, int kCount>
KVA_HOST_DEVICE inline void split_terms(float low, float high, uint32_t (&terms)[kCount]) {
  KVA_UNROLL
  for (int i = 0; i < kCount; ++i) {
    terms[i] = Numbers::pack(low, high);
    low -= Numbers::value(static_cast<uint16_t>(terms[i] & 0xffffu));
    high -= Numbers::value(static_cast<uint16_t>(terms[i] >> 16));
  }
}

struct SplitPair {
  uint32_t high;
  uint32_t low;
};
template <class Numbers>
KVA_HOST_DEVICE inline SplitPair split_pair(float first, float second) {
  uint32_t terms[2];
  split_terms<Numbers>(first, second, terms);
  return {terms[0], terms[1]};
}

// A power of two that brings numbers of at most this size below 2^(exponent + 1), and no further than it
// must.
KVA_HOST_DEVICE inline float power_to(float size, int exponent) {
  const auto biased = static_cast<int>((bits_of(size) >> 23) & 255u);
  const int wanted = exponent + 254 - biased;
  return float_of(static_cast<uint32_t>(wanted < 1 ? 1 : wanted > 253 ? 253 : wanted) << 23);
}
// 1 / x of such a power.
KVA_HOST_DEVICE inline float inverse_power(float power) { return float_of((254u << 23) - bits_of(power)); }

// What brings a row whose largest number is `largest` to [2^13, 2^14), where f16 has room above and, for what
// is split off, below; and what takes it back. Rows of zeros, and almost, get any.
struct RowScale {
  float up;
  float down;
};
KVA_HOST_DEVICE inline RowScale row_scale(float largest) {
  const float up = power_to(largest, 13);
  return {up, inverse_power(up)};
}

// 2^x: within 2^-22 of itself.
KVA_HOST_DEVICE inline float power_of_two(float x) {
#if defined(__CUDA_ARCH__)
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
#else
  return std::exp2(x);
#endif
}

}  // namespace kva
