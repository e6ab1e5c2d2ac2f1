#include "kernels/attend_narrow_kernel.cuh"

namespace kva {
namespace {

constexpr bool is_here(SideKind keys, SideKind values, int32_t width) {
  return mixes_narrow(width) && !are_alike(keys, values);
}

}  // namespace

AttendKernel narrow_mixed_attend_kernel(SideKind keys, SideKind values, int32_t head_dim) {
  return chosen_narrow_kernel<true, is_here>(keys, values, head_dim);
}

}  // namespace kva
