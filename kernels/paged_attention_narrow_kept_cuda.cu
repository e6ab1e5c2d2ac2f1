#include "kernels/attend_narrow_kernel.cuh"

namespace kva {

AttendKernel narrow_kept_attend_kernel(SideKind keys, int32_t head_dim) {
  AttendKernel chosen = nullptr;
  with_narrow_pair(keys, ChosenNarrowKernel<true>{head_dim, chosen});
  return chosen;
}

}  // namespace kva
