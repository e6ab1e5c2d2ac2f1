#include "kernels/check.h"
#include "kernels/cuda_check.cuh"
#include "kernels/device_block.cuh"
#include "kernels/device_warp.cuh"
#include "kernels/similarity_cuda.h"
#include "kernels/similarity_lanes.h"

namespace kva {
namespace {

constexpr int kThreads = kPairColumns;

__global__ void count_bits_kernel(BitCountJob job) {
  const auto c = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (c < job.columns) count_bits_of(job, static_cast<int32_t>(blockIdx.y) * kBitRows, c);
}

// A block takes an item, a thread one of its columns.
template <PairKind kKind>
__global__ void __launch_bounds__(kThreads) compare_kernel(PairJob job) {
  __shared__ PairShared<metrics_of(kKind)> shared;
  DeviceBlock block;
  const auto index = static_cast<int32_t>(blockIdx.x);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const PairItem item = job.items[index];
  begin_item<kKind>(job, item, thread, kThreads, shared);
  __syncthreads();
  ItemColumn<kKind, DeviceBlock> column(block, job, index, thread, shared);
  column.take();
  __syncwarp();
  column.finish();
  __syncthreads();
  finish_item<kKind>(block, job, item, thread, kThreads, shared);
}

// How many there are, the device alone knows: warps take them in turn.
constexpr unsigned int kNearBlocks = 1024;

__global__ void near_kernel(PairJob job) {
  DeviceWarp warp;
  DeviceBlock block;
  const uint32_t count = *job.near_count;
  for (uint32_t k = (blockIdx.x * blockDim.x + threadIdx.x) / 32; k < count; k += kNearBlocks * kThreads / 32)
    take_near(warp, block, job, k);
}

template <PairKind kKind>
void launch(const PairJob& job, cudaStream_t on) {
  compare_kernel<kKind><<<static_cast<unsigned int>(job.count), kThreads, 0, on>>>(job);
  cuda_check(cudaGetLastError(), "launching the comparison of pages");
}

}  // namespace

void count_bits_cuda(const BitCountJob& job, void* stream) {
  if (job.rows <= 0 || job.columns <= 0) return;
  const dim3 blocks(static_cast<unsigned int>((job.columns + kThreads - 1) / kThreads),
                    static_cast<unsigned int>((job.rows + kBitRows - 1) / kBitRows));
  KVA_CHECK(blocks.y <= 65535, "rows of a tile");
  count_bits_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(job);
  cuda_check(cudaGetLastError(), "launching a count of bits");
}

void compare_pairs_cuda(const PairJob& job, void* stream) {
  KVA_CHECK(job.count <= kMostPairItems && job.threshold_count <= kMaxThresholds, "items that can be named");
  if (job.count <= 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  switch (job.kind) {
    case PairKind::kHamming: return launch<PairKind::kHamming>(job, on);
    case PairKind::kJaccard: return launch<PairKind::kJaccard>(job, on);
    case PairKind::kProducts: break;
  }
  cuda_check(cudaMemsetAsync(job.near_count, 0, sizeof(uint32_t), on), "clearing a count");
  launch<PairKind::kProducts>(job, on);
  near_kernel<<<kNearBlocks, kThreads, 0, on>>>(job);
  cuda_check(cudaGetLastError(), "launching the comparison of near pages");
}

}  // namespace kva
