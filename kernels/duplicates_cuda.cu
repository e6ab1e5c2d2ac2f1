#include <cub/device/device_radix_sort.cuh>

#include "kernels/check.h"
#include "kernels/cuda_check.cuh"
#include "kernels/device_block.cuh"
#include "kernels/device_warp.cuh"
#include "kernels/duplicates_cuda.h"

namespace kva {
namespace {

constexpr int kThreads = 256;
constexpr int32_t kWarps = kThreads / 32;  // a page each

__device__ int32_t page_of_warp() {
  return static_cast<int32_t>(blockIdx.x) * kWarps + static_cast<int32_t>(threadIdx.x / 32);
}

__global__ void hash_kernel(DuplicateJob job) {
  const int32_t page = page_of_warp();
  if (page >= job.count) return;
  DeviceBlock block;
  const auto lane = static_cast<int32_t>(threadIdx.x % 32);
  if (lane == 0) job.indices[page] = page;
  hash_page(block, job, page, lane);
}

__global__ void compare_kernel(DuplicateJob job) {
  const int32_t k = page_of_warp();
  if (k < 1 || k >= job.count) return;
  DeviceWarp warp;
  DeviceBlock block;
  count_if_equal(warp, block, job, k);
}

cudaError_t sort(void* workspace, std::size_t& bytes, const DuplicateJob& job, cudaStream_t on) {
  return cub::DeviceRadixSort::SortPairs(workspace, bytes, static_cast<const uint64_t*>(job.hashes),
                                         job.sorted_hashes, static_cast<const int32_t*>(job.indices),
                                         job.sorted, job.count, 0, 64, on);
}

}  // namespace

int64_t duplicates_workspace_bytes(int32_t count) {
  DuplicateJob job;
  job.count = count;
  std::size_t bytes = 0;
  cuda_check(sort(nullptr, bytes, job, nullptr), "asking for a sort's workspace");
  return static_cast<int64_t>(bytes);
}

void count_duplicates_cuda(const DuplicateJob& job, void* workspace, int64_t workspace_bytes, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  cuda_check(cudaMemsetAsync(job.duplicates, 0, sizeof(uint64_t), on), "clearing a count");
  if (job.count <= 1) return;
  const auto blocks = static_cast<unsigned int>((int64_t{job.count} + kWarps - 1) / kWarps);
  cuda_check(cudaMemsetAsync(job.hashes, 0, static_cast<std::size_t>(job.count) * sizeof(uint64_t), on),
             "clearing hashes");
  hash_kernel<<<blocks, kThreads, 0, on>>>(job);
  cuda_check(cudaGetLastError(), "launching the hashing of pages");
  auto bytes = static_cast<std::size_t>(workspace_bytes);
  // Stable, so that pages of one hash stay in their order.
  cuda_check(sort(workspace, bytes, job, on), "sorting hashes");
  compare_kernel<<<blocks, kThreads, 0, on>>>(job);
  cuda_check(cudaGetLastError(), "launching the comparison of equal hashes");
}

}  // namespace kva
