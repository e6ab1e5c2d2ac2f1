#include "kernels/attend_kernel.cuh"

namespace kva {
namespace {

__global__ void __launch_bounds__(kMostWarps * 32)
    all_kernel(AttentionJob job, SideKind keys, SideKind values, int32_t first, int32_t count) {
  attend_warp<true, true>(job, AnyKind{keys}, AnyKind{values}, first, count);
}

}  // namespace

AttendKernel attend_all_kernel() { return all_kernel; }

}  // namespace kva
