// Attention over pages that are read in coordinates of their own or that build on others; and what a query
// leaves with each key, whatever its page. All look at a page's formats as they go: more registers, so fewer
// warps at once.
#include <algorithm>

#include "kernels/attend_kernel.cuh"
#include "kernels/attention_coordinates.h"
#include "kernels/attention_general.h"
#include "kernels/attention_observe.h"
#include "kernels/cuda_check.cuh"

namespace kva {
namespace {

__global__ void __launch_bounds__(kMostWarps * 32)
    attend_general(AttentionJob job, SideKind, SideKind, int32_t first, int32_t count) {
  extern __shared__ float shared[];
  const int32_t warp_of_block = static_cast<int32_t>(threadIdx.x) / 32;
  const int32_t warp = static_cast<int32_t>(blockIdx.x * (blockDim.x / 32)) + warp_of_block;
  if (warp >= count) return;
  DeviceWarp lane;
  attend_general_item(lane, job, job.items[first + warp],
                      shared + warp_of_block * attention_shared_values(job));
}

__global__ void __launch_bounds__(kMostWarps * 32) observe(AttentionJob job) {
  extern __shared__ float shared[];
  const int32_t warp_of_block = static_cast<int32_t>(threadIdx.x) / 32;
  const int32_t entry = static_cast<int32_t>(blockIdx.x * (blockDim.x / 32)) + warp_of_block;
  if (entry >= job.masses.count) return;
  DeviceWarp lane;
  observe_page(lane, job, entry, shared + warp_of_block * attention_shared_values(job));
}

// Warps (x) take blocks of rows of the projections or lifts y.
constexpr int kCoordinateWarps = 4;
constexpr int32_t kMostGridRows = 65535;

struct RowBlocks {
  int32_t first;
  int32_t step;
  float* shared;
};
__device__ RowBlocks row_blocks() {
  __shared__ float shared[kCoordinateWarps * kCoordinateShared];
  const int32_t warp = static_cast<int32_t>(threadIdx.x) / 32;
  return {static_cast<int32_t>(blockIdx.x * kCoordinateWarps + warp) * kItemRows,
          static_cast<int32_t>(gridDim.x * kCoordinateWarps) * kItemRows, shared + warp * kCoordinateShared};
}

__global__ void __launch_bounds__(kCoordinateWarps * 32) project(AttentionJob job, unsigned int count) {
  const RowBlocks blocks = row_blocks();
  DeviceWarp lane;
  for (unsigned int i = blockIdx.y; i < count; i += gridDim.y) {
    const AttentionProjection of = job.projections[i];
    for (int32_t row = blocks.first; row < of.rows; row += blocks.step) {
      project_rows(lane, job, of, row, blocks.shared);
      lane.sync();
    }
  }
}

__global__ void __launch_bounds__(kCoordinateWarps * 32) lift(AttentionJob job, unsigned int count) {
  const RowBlocks blocks = row_blocks();
  DeviceWarp lane;
  for (unsigned int i = blockIdx.y; i < count; i += gridDim.y) {
    const AttentionLift of = job.lifts[i];
    for (int32_t row = blocks.first; row < of.rows; row += blocks.step) {
      lift_rows(lane, job, of, row, blocks.shared);
      lane.sync();
    }
  }
}

// `count` projections or lifts, of so many rows at most.
void launch_rows(void (*kernel)(AttentionJob, unsigned int), const AttentionJob& job, int32_t count,
                 int32_t rows, void* stream) {
  if (count == 0) return;
  constexpr int32_t kRows = kCoordinateWarps * kItemRows;
  const dim3 grid(static_cast<unsigned int>((rows + kRows - 1) / kRows),
                  static_cast<unsigned int>(std::min(count, kMostGridRows)));
  kernel<<<grid, kCoordinateWarps * 32, 0, static_cast<cudaStream_t>(stream)>>>(
      job, static_cast<unsigned int>(count));
  cuda_check(cudaGetLastError(), "launching a change of coordinates");
}

}  // namespace

AttendKernel general_attend_kernel() { return attend_general; }
ObserveKernel observe_kernel() { return observe; }

void project_cuda(const AttentionGrid& grid, const AttentionJob& job, void* stream) {
  launch_rows(project, job, grid.projections, grid.projected_rows, stream);
}
void lift_cuda(const AttentionGrid& grid, const AttentionJob& job, void* stream) {
  launch_rows(lift, job, grid.lifts, grid.lifted_rows, stream);
}

}  // namespace kva
