#include "kernels/attend_narrow_kernel.cuh"

namespace kva {
namespace {

constexpr bool is_here(SideKind keys, SideKind values, int32_t) {
  return is_packed(keys) && are_alike(keys, values);
}

}  // namespace

AttendKernel narrow_kept_attend_kernel(SideKind keys, SideKind values, int32_t head_dim) {
  return chosen_narrow_kernel<true, is_here>(keys, values, head_dim);
}

}  // namespace kva
