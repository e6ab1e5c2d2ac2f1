// The warp that kernels/attention_keys.h asks for, on the device. Included by .cu files only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/tile_numbers.h"

namespace kva {

struct DeviceWarp {
  static constexpr unsigned int kAll = 0xffffffffu;
  __device__ int lane() const { return static_cast<int>(threadIdx.x % 32); }
  __device__ float shuffle_xor(float value, int mask) const { return __shfl_xor_sync(kAll, value, mask); }
  __device__ double shuffle_xor(double value, int mask) const { return __shfl_xor_sync(kAll, value, mask); }
  __device__ float shuffle(float value, int lane) const { return __shfl_sync(kAll, value, lane); }
  __device__ uint32_t shuffle(uint32_t bits, int lane) const { return __shfl_sync(kAll, bits, lane); }
  __device__ void sync() const { __syncwarp(); }

  // What tensor cores do, and what goes with it: kernels/narrow_lane.h.
  __device__ bool any(bool x) const { return __any_sync(kAll, x) != 0; }
  __device__ uint32_t transpose(uint32_t pairs) const {
    uint32_t transposed;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(pairs));
    return transposed;
  }
  template <class Numbers>
  __device__ void multiply(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (&c)[4]) const {
    if constexpr (std::is_same_v<Numbers, F16Numbers>)
      asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
          "{%8, %9}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
      asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
          "{%8, %9}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};

}  // namespace kva
