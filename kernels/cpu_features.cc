#include "kernels/cpu_features.h"

#include <hwy/highway.h>
#include <hwy/targets.h>

#include <dnnl.hpp>

namespace kva {

std::string simd_target_name() {
  // Lower bits are better targets; SupportedTargets() holds all that this machine can run.
  const auto supported = static_cast<uint64_t>(hwy::SupportedTargets()) & static_cast<uint64_t>(HWY_TARGETS);
  return hwy::TargetName(static_cast<int64_t>(supported & (~supported + 1)));
}

std::string product_isa_name() {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::sse41: return "sse41";
    case dnnl::cpu_isa::avx: return "avx";
    case dnnl::cpu_isa::avx2: return "avx2";
    case dnnl::cpu_isa::avx2_vnni: return "avx2_vnni";
    case dnnl::cpu_isa::avx512_core: return "avx512_core";
    case dnnl::cpu_isa::avx512_core_vnni: return "avx512_core_vnni";
    case dnnl::cpu_isa::avx512_core_bf16: return "avx512_core_bf16";
    case dnnl::cpu_isa::avx512_core_amx: return "avx512_core_amx";
    default: return "other";
  }
}

}  // namespace kva
