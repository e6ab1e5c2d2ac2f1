#include "kernels/attend_kernel.cuh"
#include "kernels/attention_observe.h"

namespace kva {
namespace {

// Warp w of the grid has entry w of the page list.
__global__ void __launch_bounds__(kMostWarps * 32) observe_pages(AttentionJob job) {
  extern __shared__ float shared[];
  const int32_t warp_of_block = static_cast<int32_t>(threadIdx.x) / 32;
  const int32_t entry = static_cast<int32_t>(blockIdx.x * (blockDim.x / 32)) + warp_of_block;
  if (entry >= job.masses.count) return;
  DeviceWarp lane;
  observe_page(lane, job, entry, shared + warp_of_block * attention_shared_values(job));
}

}  // namespace

ObserveKernel observe_kernel() { return observe_pages; }

}  // namespace kva
