#include "kernels/cuda_check.cuh"
#include "kernels/device_warp.cuh"
#include "kernels/orthonormal_lanes.h"
#include "kernels/projection_cuda.h"

namespace kva {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kMostBlocks = 1 << 20;

// For items of which a block takes `of_block` at a time; what is more, it takes one round after the other.
unsigned int blocks_for(int64_t items, int of_block) {
  const int64_t blocks = (items + of_block - 1) / of_block;
  return static_cast<unsigned int>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

// body(item) by all lanes of a warp, for each item.
template <class Body>
__device__ void each_warp(int64_t items, const Body& body) {
  const int64_t step = int64_t{gridDim.x} * kWarps;
  for (int64_t i = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; i < items; i += step) body(i);
}
template <class Body>
__device__ void each_thread(int64_t items, const Body& body) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < items; i += step) body(i);
}

// Neighbouring warps take neighbouring vectors of one tile, so that they read its rows together.
template <bool kCorrects>
__global__ void __launch_bounds__(kThreads) project_kernel(ProjectionJob job) {
  DeviceWarp warp;
  const int32_t tiles = projected_tiles(job);
  each_warp(int64_t{job.count} * tiles * job.rank, [&](int64_t item) {
    const int64_t tile = item / job.rank;
    project_tile<kCorrects>(warp, job, static_cast<int32_t>(tile / tiles), static_cast<int32_t>(tile % tiles),
                            static_cast<int32_t>(item - tile * job.rank));
  });
}

__global__ void __launch_bounds__(kThreads) leave_kernel(ProjectionJob job) {
  const int32_t tiles = projected_tiles(job);
  const int32_t joined = job.joined();
  each_thread(int64_t{job.count} * tiles * joined, [&](int64_t item) {
    const int64_t tile = item / joined;
    leave_tile(job, static_cast<int32_t>(tile / tiles), static_cast<int32_t>(tile % tiles),
               static_cast<int32_t>(item - tile * joined));
  });
}

__global__ void __launch_bounds__(kThreads) measure_kernel(ProjectionJob job) {
  DeviceWarp warp;
  each_warp(job.count, [&](int64_t side) { measure_projection(warp, job, static_cast<int32_t>(side)); });
}

__global__ void __launch_bounds__(kThreads) widen_kernel(WidenRowsJob job) {
  DeviceWarp warp;
  each_warp(job.count * job.tokens, [&](int64_t row) { widen_row(warp, job, row); });
}

__global__ void __launch_bounds__(kThreads) normal_kernel(NormalJob job) {
  const int64_t pairs = normal_pairs(job);
  each_thread(job.count * pairs, [&](int64_t item) {
    const int64_t index = item / pairs;
    draw_pair(job, index, item - index * pairs);
  });
}

struct Block {
  template <class Body>
  __device__ void rows(int64_t first, int64_t end, const Body& body) const {
    DeviceWarp warp;
    for (int64_t row = first + threadIdx.x / 32; row < end; row += kWarps) body(warp, row);
    __syncthreads();
  }
};

__global__ void __launch_bounds__(kThreads) orthonormal_kernel(OrthonormalJob job) {
  Block block;
  for (int64_t i = blockIdx.x; i < job.count; i += gridDim.x) orthonormalize_block(block, job, i);
}

}  // namespace

void project_cuda(const ProjectionJob& job, void* stream) {
  if (job.count <= 0 || job.tokens <= 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t tiles = int64_t{job.count} * projected_tiles(job);
  const unsigned int of_vectors = blocks_for(tiles * job.rank, kWarps);
  project_kernel<false><<<of_vectors, kThreads, 0, on>>>(job);
  leave_kernel<<<blocks_for(tiles * job.joined(), kThreads), kThreads, 0, on>>>(job);
  project_kernel<true><<<of_vectors, kThreads, 0, on>>>(job);
  if (job.lengths) measure_kernel<<<blocks_for(job.count, kWarps), kThreads, 0, on>>>(job);
  cuda_check(cudaGetLastError(), "launching a projection");
}

void widen_rows_cuda(const WidenRowsJob& job, void* stream) {
  const int64_t rows = job.count * job.tokens;
  if (rows <= 0) return;
  widen_kernel<<<blocks_for(rows, kWarps), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(job);
  cuda_check(cudaGetLastError(), "launching the gathering of rows");
}

void draw_normals_cuda(const NormalJob& job, void* stream) {
  const int64_t pairs = job.count * normal_pairs(job);
  if (pairs <= 0) return;
  normal_kernel<<<blocks_for(pairs, kThreads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(job);
  cuda_check(cudaGetLastError(), "launching random numbers");
}

void orthonormalize_cuda(const OrthonormalJob& job, void* stream) {
  if (job.count <= 0) return;
  orthonormal_kernel<<<blocks_for(job.count, 1), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(job);
  cuda_check(cudaGetLastError(), "launching QR decompositions");
}

}  // namespace kva
