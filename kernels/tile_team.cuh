// The team that kernels/tile_attention.h asks for: a block of kTileThreads threads, with PTX for the tensor
// cores of sm_80 and later. Included by .cu files only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/tile_numbers.h"

namespace kva {

class DeviceTileTeam {
 public:
  __device__ int32_t thread() const { return static_cast<int32_t>(threadIdx.x); }
  __device__ int32_t lane() const { return static_cast<int32_t>(threadIdx.x % 32); }
  __device__ int32_t warp() const { return static_cast<int32_t>(threadIdx.x / 32); }
  __device__ void sync() const { __syncthreads(); }
  __device__ bool any(bool value) const { return __any_sync(0xffffffffu, value) != 0; }
  __device__ float shuffle_xor(float value, int mask) const {
    return __shfl_xor_sync(0xffffffffu, value, mask);
  }

  __device__ void copy_async(uint16_t* to, const uint8_t* from, bool present) const {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(present ? 16 : 0)
                 : "memory");
  }
  __device__ void await_copies() const { asm volatile("cp.async.wait_all;" ::: "memory"); }

  __device__ void load_matrices(const uint16_t* row, uint32_t (&x)[4]) const {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
  __device__ void load_transposed(const uint16_t* row, uint32_t (&x)[4]) const {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
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

 private:
  __device__ static uint32_t shared_address(const void* shared) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  }
};

}  // namespace kva
