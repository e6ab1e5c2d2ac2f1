// The kernel of attention over pages, for one pair of kinds or for any. Included by .cu files only.
#pragma once

#include "kernels/attention_warp.h"
#include "kernels/device_warp.cuh"

namespace kva {

using AttendKernel = void (*)(AttentionJob job, SideKind keys, SideKind values, int32_t first, int32_t count);

// The kernels compiled for pairs that are common: both sides dense of one kind, or both packed with as many
// bits, or codes of as many levels. Null for others: attend_any_kernel() takes every pair without levels,
// with more registers.
AttendKernel dense_attend_kernel(SideKind keys, SideKind values);
AttendKernel packed_attend_kernel(SideKind keys, SideKind values);
AttendKernel levels_attend_kernel(SideKind keys, SideKind values);

// Of narrow buckets, which have kMostWarps items a block and need no shared memory of the launch's: of bare
// pages; of those that keep numbers, whose sides are alike; and of those whose sides are not.
AttendKernel narrow_attend_kernel(SideKind keys, SideKind values, int32_t head_dim);
AttendKernel narrow_kept_attend_kernel(SideKind keys, SideKind values, int32_t head_dim);
AttendKernel narrow_mixed_attend_kernel(SideKind keys, SideKind values, int32_t head_dim);

// Of general buckets, whatever their kinds; it reads every other as well.
AttendKernel general_attend_kernel();
// Warp w of the grid has entry w of the page list.
using ObserveKernel = void (*)(AttentionJob job);
ObserveKernel observe_kernel();

// The plan's projections, before its items, and its lifts, behind them.
void project_cuda(const AttentionGrid& grid, const AttentionJob& job, void* stream);
void lift_cuda(const AttentionGrid& grid, const AttentionJob& job, void* stream);

// Blocks that a multiprocessor shall be able to hold at once: 16 warps with 128 registers a lane.
inline constexpr int kBlocksAtOnce = 4;

// Warp w of the grid has item first + w.
template <bool kTurns = false, class KeyKind, class ValueKind>
__device__ inline void attend_warp(const AttentionJob& job, KeyKind keys, ValueKind values, int32_t first,
                                   int32_t count) {
  extern __shared__ float shared[];
  const int32_t warp_of_block = static_cast<int32_t>(threadIdx.x) / 32;
  const int32_t warp = static_cast<int32_t>(blockIdx.x * (blockDim.x / 32)) + warp_of_block;
  if (warp >= count) return;
  DeviceWarp lane;
  const int32_t numbers = shares_numbers(keys) ? job.key_numbers + job.value_numbers : 0;
  attend_item<kTurns>(
      lane, job, keys, values, job.items[first + warp],
      shared + warp_of_block * attention_shared_values(job.head_dim, job.longest_page, numbers));
}

template <SideKind keys, SideKind values>
__global__ void __launch_bounds__(kMostWarps * 32, kBlocksAtOnce)
    attend_kernel(AttentionJob job, SideKind, SideKind, int32_t first, int32_t count) {
  attend_warp(job, KnownKind<keys>(), KnownKind<values>(), first, count);
}

}  // namespace kva
