#include "kernels/check.h"
#include "kernels/cover_cuda.h"
#include "kernels/cover_lanes.h"
#include "kernels/cuda_check.cuh"
#include "kernels/device_block.cuh"
#include "kernels/device_warp.cuh"

namespace kva {
namespace {

constexpr int kThreads = 256;
constexpr int32_t kRows = 16;  // of a thread
constexpr int kOrderThreads = 512;
constexpr unsigned int kNearBlocks = 1024;

__global__ void cover_kernel(CoverJob job) {
  const auto c = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (c >= job.columns) return;
  DeviceBlock block;
  const int32_t first = static_cast<int32_t>(blockIdx.y) * kRows;
  for (int32_t r = first; r < job.rows && r < first + kRows; ++r) cover_pair(block, job, r, c);
}

__global__ void near_kernel(CoverJob job) {
  DeviceWarp warp;
  DeviceBlock block;
  const uint32_t count = *job.near_count;
  for (uint32_t k = (blockIdx.x * blockDim.x + threadIdx.x) / 32; k < count; k += kNearBlocks * kThreads / 32)
    cover_near_pair(warp, block, job, k);
}

// One block: a page is decided when all before it are.
__global__ void order_kernel(CoverJob job) {
  __shared__ uint32_t freed[kMostCoverRows];
  __shared__ uint32_t found;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  for (int32_t r = thread; r < job.rows; r += kOrderThreads) freed[r] = job.freed[job.row + r];
  if (thread == 0) found = 0;
  __syncthreads();
  for (int32_t r = 0; r < job.rows; ++r) {
    const uint32_t own = freed_by_earlier(job, freed, r, thread, kOrderThreads);
    if (own != 0) atomicOr(&found, own);
    __syncthreads();
    if (thread == 0) {
      freed[r] |= found;
      found = 0;
    }
    __syncthreads();
  }
  for (int32_t r = thread; r < job.rows; r += kOrderThreads) job.freed[job.row + r] = freed[r];
}

}  // namespace

void cover_cuda(const CoverJob& job, void* stream) {
  KVA_CHECK(job.rows <= kMostCoverRows && (job.same_pages() || job.column + job.columns <= job.row),
            "pages that are decided, or the same");
  if (job.rows <= 0 || job.columns <= 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  cuda_check(cudaMemsetAsync(job.near_count, 0, sizeof(uint32_t), on), "clearing a count");
  const dim3 blocks(static_cast<unsigned int>((job.columns + kThreads - 1) / kThreads),
                    static_cast<unsigned int>((job.rows + kRows - 1) / kRows));
  cover_kernel<<<blocks, kThreads, 0, on>>>(job);
  cuda_check(cudaGetLastError(), "launching a cover of pages");
  near_kernel<<<kNearBlocks, kThreads, 0, on>>>(job);
  cuda_check(cudaGetLastError(), "launching a cover of near pages");
  if (!job.same_pages()) return;
  order_kernel<<<1, kOrderThreads, 0, on>>>(job);
  cuda_check(cudaGetLastError(), "launching a cover in order");
}

}  // namespace kva
