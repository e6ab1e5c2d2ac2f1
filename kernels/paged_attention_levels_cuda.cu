#include "kernels/attend_kernel.cuh"

namespace kva {

AttendKernel levels_attend_kernel(SideKind keys, SideKind values) {
  if (!has_levels(keys) || !has_levels(values) || side_bits(keys) != side_bits(values)) return nullptr;
  switch (keys) {
    case SideKind::kLevels8: return attend_kernel<SideKind::kLevels8, SideKind::kLevels8>;
    case SideKind::kLevels4: return attend_kernel<SideKind::kLevels4, SideKind::kLevels4>;
    case SideKind::kLevels3: return attend_kernel<SideKind::kLevels3, SideKind::kLevels3>;
    case SideKind::kLevels2: return attend_kernel<SideKind::kLevels2, SideKind::kLevels2>;
    case SideKind::kLevels8ByChannel: return attend_kernel<SideKind::kLevels8ByChannel, SideKind::kLevels8>;
    case SideKind::kLevels4ByChannel: return attend_kernel<SideKind::kLevels4ByChannel, SideKind::kLevels4>;
    case SideKind::kLevels3ByChannel: return attend_kernel<SideKind::kLevels3ByChannel, SideKind::kLevels3>;
    case SideKind::kLevels2ByChannel: return attend_kernel<SideKind::kLevels2ByChannel, SideKind::kLevels2>;
    default: return nullptr;
  }
}

}  // namespace kva
