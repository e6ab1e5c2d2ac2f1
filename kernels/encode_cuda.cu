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

// Block `side`: its threads take the side's scales, then, when all are there, its codes.
__global__ void pack_kernel(SideFormat format, const float* rows, int64_t rows_stride,
                            std::byte* const* payloads) {
  const PackJob job{format, rows + blockIdx.x * rows_stride, format.width, payloads[blockIdx.x]};
  const int32_t scales = format.groups * (format.scale_by_token ? format.tokens : format.width);
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < scales; i += kThreads) pack_scale(job, i);
  __syncthreads();
  const int32_t lanes = packed_lanes(format);
  const int32_t all = packed_rows(format) * lanes;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < all; i += kThreads)
    pack_lane(job, i / lanes, i % lanes);
}

__global__ void hadamard_kernel(float* rows, int64_t count, int32_t cols) {
  extern __shared__ float shared[];
  const int warp_of_block = static_cast<int>(threadIdx.x) / 32;
  const int64_t row = int64_t{blockIdx.x} * (blockDim.x / 32) + warp_of_block;
  if (row >= count) return;
  DeviceWarp warp;
  hadamard_row(warp, rows + row * cols, cols, shared + warp_of_block * cols);
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

void pack_cuda(const SideFormat& format, const float* rows, int64_t rows_stride, std::byte* const* payloads,
               int32_t count, void* stream) {
  KVA_CHECK(
      is_packed(format.kind) && format.outliers == 0 && format.dense_channels == 0 && format.factors_at < 0,
      "a format of codes and scales alone");
  if (count <= 0) return;
  pack_kernel<<<static_cast<unsigned int>(count), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      format, rows, rows_stride, payloads);
  cuda_check(cudaGetLastError(), "launching an encoding");
}

void hadamard_cuda(float* rows, int64_t count, int32_t cols, void* stream) {
  KVA_CHECK(cols > 0 && (cols & (cols - 1)) == 0 && cols <= 1024, "a power of two of columns, up to 1024");
  if (count <= 0) return;
  constexpr int64_t kWarps = kThreads / 32;
  hadamard_kernel<<<static_cast<unsigned int>((count + kWarps - 1) / kWarps), kThreads,
                    static_cast<std::size_t>(kWarps * cols) * sizeof(float),
                    static_cast<cudaStream_t>(stream)>>>(rows, count, cols);
  cuda_check(cudaGetLastError(), "launching a rotation");
}

}  // namespace kva
