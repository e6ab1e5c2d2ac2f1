// The team that kernels/tile_attention.h asks for: a block of kTileThreads threads, with PTX for the tensor
// cores of sm_80 and later. Included by .cu files only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/device_warp.cuh"

namespace kva {

class DeviceTileTeam : public DeviceWarp {
 public:
  __device__ int32_t thread() const { return static_cast<int32_t>(threadIdx.x); }
  __device__ int32_t warp() const { return static_cast<int32_t>(threadIdx.x / 32); }
  __device__ void sync() const { __syncthreads(); }

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

 private:
  __device__ static uint32_t shared_address(const void* shared) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  }
};

}  // namespace kva
