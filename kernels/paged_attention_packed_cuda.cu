#include "kernels/attend_kernel.cuh"

namespace kva {

AttendKernel packed_attend_kernel(SideKind keys, SideKind values) {
  if (!is_packed(keys) || !is_packed(values) || side_bits(keys) != side_bits(values)) return nullptr;
  switch (keys) {
    case SideKind::kBits8: return attend_kernel<SideKind::kBits8, SideKind::kBits8>;
    case SideKind::kBits4: return attend_kernel<SideKind::kBits4, SideKind::kBits4>;
    case SideKind::kBits3: return attend_kernel<SideKind::kBits3, SideKind::kBits3>;
    case SideKind::kBits2: return attend_kernel<SideKind::kBits2, SideKind::kBits2>;
    case SideKind::kBits8ByChannel: return attend_kernel<SideKind::kBits8ByChannel, SideKind::kBits8>;
    case SideKind::kBits4ByChannel: return attend_kernel<SideKind::kBits4ByChannel, SideKind::kBits4>;
    case SideKind::kBits3ByChannel: return attend_kernel<SideKind::kBits3ByChannel, SideKind::kBits3>;
    case SideKind::kBits2ByChannel: return attend_kernel<SideKind::kBits2ByChannel, SideKind::kBits2>;
    default: return nullptr;
  }
}

}  // namespace kva
