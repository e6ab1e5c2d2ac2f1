// What the SIMD kernels and the matrix products chose on this machine, for reports and `kvanalyze doctor`.
#pragma once

#include <string>

namespace kva {

std::string simd_target_name();  // Highway's name of the target in use: "AVX3_DL", "AVX2", ...
std::string product_isa_name();  // oneDNN's: "avx512_core_bf16", "avx512_core_amx", "avx2", ...

}  // namespace kva
