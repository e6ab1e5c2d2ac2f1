#include "kernels/cuda_check.cuh"
#include "kernels/unpack_cuda.h"

namespace kva {
namespace {

constexpr int kThreads = 256;

struct Block {
  template <class Body>
  __device__ void each(int32_t count, const Body& body) const {
    for (auto i = static_cast<int32_t>(threadIdx.x); i < count; i += kThreads) body(i);
    __syncthreads();
  }
};

__global__ void __launch_bounds__(kThreads) unpack_kernel(UnpackJob job) {
  Block block;
  for (auto run = static_cast<int32_t>(blockIdx.x); run < job.count; run += static_cast<int32_t>(gridDim.x))
    unpack_run(block, job, run);
}

}  // namespace

void unpack_cuda(const UnpackJob& job, void* stream) {
  if (job.count <= 0) return;
  constexpr int32_t kMostBlocks = 1 << 20;
  const int32_t blocks = job.count < kMostBlocks ? job.count : kMostBlocks;
  unpack_kernel<<<static_cast<unsigned int>(blocks), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(job);
  cuda_check(cudaGetLastError(), "launching a decoding");
}

}  // namespace kva
