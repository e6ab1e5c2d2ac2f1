#include "kernels/attend_kernel.cuh"

namespace kva {

AttendKernel dense_attend_kernel(SideKind keys, SideKind values) {
  if (keys != values) return nullptr;
  switch (keys) {
    case SideKind::kF32: return attend_kernel<SideKind::kF32, SideKind::kF32>;
    case SideKind::kE4M3: return attend_kernel<SideKind::kE4M3, SideKind::kE4M3>;
    case SideKind::kE5M2: return attend_kernel<SideKind::kE5M2, SideKind::kE5M2>;
    default: return nullptr;
  }
}

}  // namespace kva
