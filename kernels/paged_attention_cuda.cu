#include <utility>

#include "kernels/attend_kernel.cuh"
#include "kernels/attention_observe.h"
#include "kernels/check.h"
#include "kernels/cuda_check.cuh"
#include "kernels/paged_attention_cuda.h"
#include "kernels/tile_kernel.cuh"

namespace kva {
namespace {

constexpr int kMergeThreads = 128;

// Any pair of kinds that share nothing, and of keys that are not cached as their positions turn them, known
// at run time only: more registers, so fewer warps at once.
__global__ void __launch_bounds__(kMostWarps * 32)
    attend_any_kernel(AttentionJob job, SideKind keys, SideKind values, int32_t first, int32_t count) {
  attend_warp<true>(job, keys, values, first, count);
}

AttendKernel attend_kernel_for(const AttentionJob& job, const AttentionBucket& bucket) {
  const auto [keys, values] = std::pair(bucket.keys, bucket.values);
  if (bucket.narrow == NarrowKind::kBare) return narrow_attend_kernel(keys, values, job.head_dim);
  if (bucket.narrow == NarrowKind::kKept)
    return are_alike(keys, values) ? narrow_kept_attend_kernel(keys, values, job.head_dim)
                                   : narrow_mixed_attend_kernel(keys, values, job.head_dim);
  if (bucket.general) return general_attend_kernel();
  if (has_levels(keys))
    return job.turning == KeyTurning::kNone ? levels_attend_kernel(keys, values) : general_attend_kernel();
  if (job.turning != KeyTurning::kNone) return attend_any_kernel;
  if (const AttendKernel dense = dense_attend_kernel(keys, values)) return dense;
  if (const AttendKernel packed = packed_attend_kernel(keys, values)) return packed;
  return attend_any_kernel;
}

// Block (row, table).
__global__ void merge_kernel(const AttentionMerge* merges, AttentionJob job, float* out, int64_t stride) {
  const AttentionMerge merge = merges[blockIdx.y];
  for (int32_t row = static_cast<int32_t>(blockIdx.x); row < merge.rows;
       row += static_cast<int32_t>(gridDim.x)) {
    float* to = out + result_at(merge, row, job.group, job.head_dim, stride);
    for (int32_t c = static_cast<int32_t>(threadIdx.x); c < job.head_dim; c += kMergeThreads)
      to[c] = merged_value(merge, row, c, job.head_dim, job.state_values, job.state_max, job.state_sum);
    if (job.masses.pages && threadIdx.x == 0) put_finals(merge, row, job);
  }
}

// Bytes of shared memory that a block of the device may have.
int64_t shared_limit() {
  static const int64_t limit = [] {
    int bytes = 0;
    cuda_check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), "asking a device");
    return int64_t{bytes};
  }();
  return limit;
}

// Floats of shared memory that a warp of the bucket's kernel needs.
int64_t shared_values(const AttentionJob& job, const AttentionBucket& bucket) {
  if (bucket.narrow != NarrowKind::kNone) return 0;
  const bool levels = has_levels(bucket.keys);
  if (bucket.general || (levels && job.turning != KeyTurning::kNone)) return attention_shared_values(job);
  return attention_shared_values(job.head_dim, job.longest_page,
                                 levels ? job.key_numbers + job.value_numbers : 0);
}

// A block takes an item; those with the most pages, the last rows', begin first.
void attend_in_tiles(const AttentionJob& job, const AttentionBucket& bucket, cudaStream_t on) {
  KVA_CHECK(job.turning == KeyTurning::kNone, "keys that come turned");
  const TileKernel tiles = bucket.tiles == TileKind::kF16    ? f16_tile_kernel(job.head_dim)
                           : bucket.tiles == TileKind::kBF16 ? bf16_tile_kernel(job.head_dim)
                                                             : decoded_tile_kernel(job.head_dim);
  KVA_CHECK(tiles.kernel && tiles.shared_bytes <= shared_limit(), "tiles that fit the shared memory");
  allow_shared(tiles.kernel, tiles.shared_bytes);
  tiles.kernel<<<static_cast<unsigned int>(bucket.count), kTileThreads,
                 static_cast<std::size_t>(tiles.shared_bytes), on>>>(job, bucket.keys, bucket.values,
                                                                     bucket.first, bucket.count);
  cuda_check(cudaGetLastError(), "launching attention in tiles");
}

void attend_one_by_one(const AttentionJob& job, const AttentionBucket& bucket, cudaStream_t on) {
  const AttentionLaunch launch = attention_launch(bucket.count, shared_values(job, bucket), shared_limit());
  const AttendKernel kernel = attend_kernel_for(job, bucket);
  allow_shared(kernel, launch.shared_bytes);
  kernel<<<static_cast<unsigned int>(launch.blocks), static_cast<unsigned int>(launch.warps * 32),
           static_cast<std::size_t>(launch.shared_bytes), on>>>(job, bucket.keys, bucket.values, bucket.first,
                                                                bucket.count);
  cuda_check(cudaGetLastError(), "launching attention");
}

void observe(const AttentionJob& job, cudaStream_t on) {
  const AttentionLaunch launch =
      attention_launch(job.masses.count, attention_shared_values(job), shared_limit());
  const ObserveKernel kernel = observe_kernel();
  allow_shared(kernel, launch.shared_bytes);
  kernel<<<static_cast<unsigned int>(launch.blocks), static_cast<unsigned int>(launch.warps * 32),
           static_cast<std::size_t>(launch.shared_bytes), on>>>(job);
  cuda_check(cudaGetLastError(), "launching the observation of attention");
}

}  // namespace

void attend_cuda(const AttentionGrid& grid, const AttentionJob& job, const AttentionMerge* merges, float* out,
                 int64_t out_stride, void* stream) {
  KVA_CHECK(job.head_dim > 0 && job.head_dim % 8 == 0 && job.head_dim <= 256, "a head dimension up to 256");
  KVA_CHECK(job.longest_page == grid.longest_page && job.widest == grid.widest &&
                job.key_numbers == grid.key_numbers && job.value_numbers == grid.value_numbers &&
                job.lifted_key == grid.lifted_key,
            "the plan's shared memory");
  const auto on = static_cast<cudaStream_t>(stream);
  KVA_CHECK(grid.tables <= 65535, "tables that a grid reaches");
  project_cuda(grid, job, stream);
  for (const AttentionBucket& bucket : grid.buckets) {
    KVA_CHECK(bucket.narrow == NarrowKind::kNone || job.turning == KeyTurning::kNone,
              "keys that need no turning");
    if (bucket.tiles == TileKind::kNone)
      attend_one_by_one(job, bucket, on);
    else
      attend_in_tiles(job, bucket, on);
  }
  lift_cuda(grid, job, stream);
  if (grid.rows == 0) return;
  const dim3 blocks(static_cast<unsigned int>(grid.rows), static_cast<unsigned int>(grid.tables));
  merge_kernel<<<blocks, kMergeThreads, 0, on>>>(merges, job, out, out_stride);
  cuda_check(cudaGetLastError(), "launching the merge of states");
  if (job.masses.pages) observe(job, on);
}

}  // namespace kva
