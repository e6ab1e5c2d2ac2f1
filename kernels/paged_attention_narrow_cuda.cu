#include "kernels/attend_narrow_kernel.cuh"

namespace kva {

AttendKernel narrow_attend_kernel(SideKind keys, int32_t head_dim) {
  AttendKernel chosen = nullptr;
  with_narrow_pair(keys, ChosenNarrowKernel<false>{head_dim, chosen});
  return chosen;
}

}  // namespace kva
