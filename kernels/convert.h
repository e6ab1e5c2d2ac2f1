// Bulk conversion between storage types and f32, with the SIMD the machine has.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace kva {

// values[i] = element i of `source`, which holds `count` elements of `type`.
void to_f32(const void* source, DType type, float* values, int64_t count);

// The reverse; rounds to nearest even.
void from_f32(const float* values, DType type, void* target, int64_t count);

}  // namespace kva
