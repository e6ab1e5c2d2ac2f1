// The warp that kernels/attention_keys.h asks for, on the device. Included by .cu files only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace kva {

struct DeviceWarp {
  static constexpr unsigned int kAll = 0xffffffffu;
  __device__ int lane() const { return static_cast<int>(threadIdx.x % 32); }
  __device__ float shuffle_xor(float value, int mask) const { return __shfl_xor_sync(kAll, value, mask); }
  __device__ double shuffle_xor(double value, int mask) const { return __shfl_xor_sync(kAll, value, mask); }
  __device__ float shuffle(float value, int lane) const { return __shfl_sync(kAll, value, lane); }
  __device__ void sync() const { __syncwarp(); }

  // What kernels/narrow_lane.h asks for.
  __device__ bool any(bool x) const { return __any_sync(kAll, x) != 0; }
  __device__ uint32_t transpose(uint32_t pairs) const {
    uint32_t transposed;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(pairs));
    return transposed;
  }
  template <bool kBf16>
  __device__ void multiply(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) const {
    if constexpr (kBf16)
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    else
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
};

}  // namespace kva
