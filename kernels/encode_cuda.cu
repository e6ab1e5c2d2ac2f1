#include "kernels/check.h"
#include "kernels/cuda_check.cuh"
#include "kernels/device_warp.cuh"
#include "kernels/encode_cuda.h"

namespace kva {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 1 << 16;

unsigned int blocks_for(int64_t threads) {
  const int64_t blocks = (threads + kThreads - 1) / kThreads;
  return static_cast<unsigned int>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

__global__ void append_kernel(AppendJob job) {
  const int64_t cols = int64_t{job.kv_heads} * job.head_dim;
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < job.rows * cols; i += step) {
    const int64_t row = i / cols;
    append_one(job, row, i - row * cols);
  }
}

__global__ void place_kernel(PlaceJob job) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < job.count) place_one(job, i);
}

}  // namespace

void append_cuda(const AppendJob& job, void* stream) {
  const int64_t numbers = job.rows * job.kv_heads * job.head_dim;
  if (numbers <= 0) return;
  append_kernel<<<blocks_for(numbers), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(job);
  cuda_check(cudaGetLastError(), "launching an append");
}

void place_cuda(const PlaceJob& job, void* stream) {
  if (job.count <= 0) return;
  const int64_t blocks = (job.count + kThreads - 1) / kThreads;
  place_kernel<<<static_cast<unsigned int>(blocks), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(job);
  cuda_check(cudaGetLastError(), "launching page table entries");
}

}  // namespace kva
