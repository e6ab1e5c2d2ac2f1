// Rows of numbers in shared memory, as dense page sides have them.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/device_page.h"
#include "kernels/host_device.h"
#include "kernels/value_math.h"

namespace kva {

// What one load or store takes.
template <int count>
struct alignas(4 * count) Words {
  uint32_t words[count];
};
using FourWords = Words<4>;

// Number `i` of the words of a load.
template <SideKind source>
KVA_LANE_CODE float number_in(const uint32_t* words, int i) {
  if constexpr (source == SideKind::kF32) return float_of(words[i]);
  const auto code = static_cast<uint16_t>(words[i / 2] >> (16 * (i % 2)));
  return source == SideKind::kF16 ? f16_value(code) : bf16_value(code);
}

template <SideKind source>
KVA_LANE_CODE float staged_number(const std::byte* rows, int32_t i) {
  if constexpr (source == SideKind::kF32) return reinterpret_cast<const float*>(rows)[i];
  const uint16_t code = reinterpret_cast<const uint16_t*>(rows)[i];
  return source == SideKind::kF16 ? f16_value(code) : bf16_value(code);
}

// Those from number `i` on, which is a multiple of their count.
template <SideKind source, int count>
KVA_LANE_CODE void staged_numbers(const std::byte* rows, int32_t i, float (&numbers)[count]) {
  constexpr int kBytes = side_bits(source) / 8;
  constexpr int kLoads = (count * kBytes + 15) / 16;
  constexpr int kNumbers = count / kLoads;
  if constexpr (kNumbers == 1) {
    numbers[0] = staged_number<source>(rows, i);
  } else {
    const auto* loads = reinterpret_cast<const Words<kNumbers * kBytes / 4>*>(rows + i * kBytes);
    KVA_UNROLL
    for (int load = 0; load < kLoads; ++load) {
      const auto of = loads[load];
      KVA_UNROLL
      for (int n = 0; n < kNumbers; ++n) numbers[load * kNumbers + n] = number_in<source>(of.words, n);
    }
  }
}

template <SideKind source>
KVA_LANE_CODE void put_staged(std::byte* rows, int32_t i, float x) {
  if constexpr (source == SideKind::kF32)
    reinterpret_cast<float*>(rows)[i] = x;
  else
    reinterpret_cast<uint16_t*>(rows)[i] = source == SideKind::kF16 ? f16_code(x) : bf16_code(x);
}

// What codecs refuse.
KVA_LANE_CODE inline bool is_beyond_f16(float x) { return !(fabsf(x) <= 65504.0f); }

// i / n for 0 <= i < 2^18, given 1 / n: without the steps of a division of integers. i + 1/2 is at least half
// an n-th, and so 2^-19 of the quotient, away from where another one begins.
KVA_LANE_CODE inline int32_t small_quotient(int32_t i, float inverse) {
  return static_cast<int32_t>((static_cast<float>(i) + 0.5f) * inverse);
}

}  // namespace kva
