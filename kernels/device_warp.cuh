// The warp that kernels/attention_keys.h asks for, on the device. Included by .cu files only.
#pragma once

#include <cuda_runtime.h>

namespace kva {

struct DeviceWarp {
  static constexpr unsigned int kAll = 0xffffffffu;
  __device__ int lane() const { return static_cast<int>(threadIdx.x % 32); }
  __device__ float shuffle_xor(float value, int mask) const { return __shfl_xor_sync(kAll, value, mask); }
  __device__ double shuffle_xor(double value, int mask) const { return __shfl_xor_sync(kAll, value, mask); }
  __device__ void sync() const { __syncwarp(); }
};

}  // namespace kva
