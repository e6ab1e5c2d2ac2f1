#include "kernels/attend_kernel.cuh"

namespace kva {

AttendKernel dense_attend_kernel(SideKind keys, SideKind values) {
  if (keys != values) return nullptr;
  switch (keys) {
    case SideKind::kF32: return attend_kernel<SideKind::kF32, SideKind::kF32>;
    case SideKind::kF16: return attend_kernel<SideKind::kF16, SideKind::kF16>;
    case SideKind::kBF16: return attend_kernel<SideKind::kBF16, SideKind::kBF16>;
    case SideKind::kE4M3: return attend_kernel<SideKind::kE4M3, SideKind::kE4M3>;
    case SideKind::kE5M2: return attend_kernel<SideKind::kE5M2, SideKind::kE5M2>;
    default: return nullptr;
  }
}

}  // namespace kva
