// The block that kernels/similarity_lanes.h asks for, on the device. Included by .cu files only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace kva {

struct DeviceBlock {
  using Wide = unsigned long long;
  static_assert(sizeof(Wide) == sizeof(uint64_t));

  __device__ void add(uint64_t* to, uint64_t value) const {
    __syncwarp();
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset);
    if (threadIdx.x % 32 == 0 && value != 0) add_one(to, value);
  }
  __device__ void add_one(uint64_t* to, uint64_t value) const {
    atomicAdd(reinterpret_cast<Wide*>(to), static_cast<Wide>(value));
  }
  __device__ void join(uint32_t* to, uint32_t bits) const { atomicOr(to, bits); }
  __device__ uint32_t take(uint32_t* from, uint32_t count) const { return atomicAdd(from, count); }
  // What is there only grows, resp. shrinks: where it is enough already, it stays so.
  __device__ void raise(int32_t* to, int32_t value) const {
    if (*to < value) atomicMax(to, value);
  }
  __device__ void lower(int32_t* to, int32_t value) const {
    if (*to > value) atomicMin(to, value);
  }
  __device__ uint64_t raise(uint64_t* to, uint64_t value) const {
    return atomicMax(reinterpret_cast<Wide*>(to), static_cast<Wide>(value));
  }
};

}  // namespace kva
