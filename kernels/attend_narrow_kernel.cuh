// The kernels of narrow items, for one pair of kinds and one width each. Included by .cu files only.
#pragma once

#include "kernels/attend_kernel.cuh"
#include "kernels/attention_narrow.h"

namespace kva {

// Blocks that a multiprocessor shall be able to hold at once: wide heads leave room for fewer.
template <int kWidth>
constexpr int kNarrowBlocks = kWidth > 128  ? 2
                              : kWidth > 64 ? 3
                                            : 4;

// Warp w of the grid has item first + w.
template <SideKind keys, SideKind values, int kWidth, bool kKept>
__global__ void __launch_bounds__(kMostWarps * 32, kNarrowBlocks<kWidth>)
    attend_narrow_kernel(AttentionJob job, SideKind, SideKind, int32_t first, int32_t count) {
  __shared__ NarrowMemory memory[kMostWarps];
  const int32_t warp_of_block = static_cast<int32_t>(threadIdx.x) / 32;
  const int32_t warp = static_cast<int32_t>(blockIdx.x) * kMostWarps + warp_of_block;
  if (warp >= count) return;
  DeviceWarp lane;
  attend_narrow_item<keys, values, kWidth, kKept>(lane, job, job.items[first + warp], memory[warp_of_block]);
}

// The kernel of a pair, if it is of those that wanted(keys, values, width).
template <bool kKept, auto wanted>
struct ChosenNarrowKernel {
  int32_t head_dim;
  AttendKernel& chosen;

  template <SideKind keys, SideKind values>
  void run() const {
    with_tensor_width(head_dim, [&](auto width) {
      constexpr int kWidth = decltype(width)::value;
      if constexpr (wanted(keys, values, kWidth)) chosen = attend_narrow_kernel<keys, values, kWidth, kKept>;
    });
  }
};

template <bool kKept, auto wanted>
AttendKernel chosen_narrow_kernel(SideKind keys, SideKind values, int32_t head_dim) {
  AttendKernel chosen = nullptr;
  with_narrow_pair(keys, values, ChosenNarrowKernel<kKept, wanted>{head_dim, chosen});
  return chosen;
}

}  // namespace kva
