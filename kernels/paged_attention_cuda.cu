#include "kernels/attention_warp.h"
#include "kernels/check.h"
#include "kernels/cuda_check.cuh"
#include "kernels/device_warp.cuh"
#include "kernels/paged_attention_cuda.h"

namespace kva {
namespace {

constexpr int kMergeThreads = 128;

// Warp w of the grid has item first + w.
__global__ void __launch_bounds__(kMostWarps * 32)
    attend_kernel(AttentionJob job, SideKind keys, SideKind values, int32_t first, int32_t count) {
  extern __shared__ float shared[];
  const int32_t warp_of_block = static_cast<int32_t>(threadIdx.x) / 32;
  const int32_t warp = static_cast<int32_t>(blockIdx.x * (blockDim.x / 32)) + warp_of_block;
  if (warp >= count) return;
  DeviceWarp lane;
  attend_item(lane, job, keys, values, job.items[first + warp],
              shared + warp_of_block * attention_shared_values(job.head_dim, job.longest_page));
}

// Block (row, table).
__global__ void merge_kernel(const AttentionMerge* merges, AttentionJob job, float* out, int64_t stride) {
  const AttentionMerge merge = merges[blockIdx.y];
  for (int32_t row = static_cast<int32_t>(blockIdx.x); row < merge.rows;
       row += static_cast<int32_t>(gridDim.x)) {
    float* to = out + result_at(merge, row, job.group, job.head_dim, stride);
    for (int32_t c = static_cast<int32_t>(threadIdx.x); c < job.head_dim; c += kMergeThreads)
      to[c] = merged_value(merge, row, c, job.head_dim, job.state_values, job.state_max, job.state_sum);
  }
}

// Bytes of shared memory that a block of the device may have; the kernel is allowed them once.
int64_t shared_limit() {
  static const int64_t limit = [] {
    int bytes = 0;
    cuda_check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), "asking a device");
    cuda_check(cudaFuncSetAttribute(attend_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
               "allowing shared memory");
    return int64_t{bytes};
  }();
  return limit;
}

}  // namespace

void attend_cuda(const AttentionPlan& plan, const AttentionJob& job, const AttentionMerge* merges, float* out,
                 int64_t out_stride, void* stream) {
  KVA_CHECK(job.head_dim > 0 && job.head_dim % 8 == 0 && job.head_dim <= 256, "a head dimension up to 256");
  KVA_CHECK(job.longest_page == plan.longest_page, "the plan's longest page");
  const auto on = static_cast<cudaStream_t>(stream);
  KVA_CHECK(plan.merges.size() <= 65535, "tables that a grid reaches");
  int32_t rows = 0;
  for (const AttentionMerge& merge : plan.merges) rows = merge.rows > rows ? merge.rows : rows;
  if (rows == 0) return;
  for (const AttentionBucket& bucket : plan.buckets) {
    const AttentionLaunch launch =
        attention_launch(bucket.count, job.head_dim, job.longest_page, shared_limit());
    attend_kernel<<<static_cast<unsigned int>(launch.blocks), static_cast<unsigned int>(launch.warps * 32),
                    static_cast<std::size_t>(launch.shared_bytes), on>>>(job, bucket.keys, bucket.values,
                                                                         bucket.first, bucket.count);
    cuda_check(cudaGetLastError(), "launching attention");
  }
  const dim3 grid(static_cast<unsigned int>(rows), static_cast<unsigned int>(plan.merges.size()));
  merge_kernel<<<grid, kMergeThreads, 0, on>>>(merges, job, out, out_stride);
  cuda_check(cudaGetLastError(), "launching the merge of states");
}

}  // namespace kva
