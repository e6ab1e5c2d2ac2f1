#include "kernels/fp8.h"

#include "kernels/value_math.h"

namespace kva {

uint8_t fp8_from_f32(float value, Fp8 type) { return fp8_code(value, type); }
float f32_from_fp8(uint8_t code, Fp8 type) { return fp8_value(code, type); }

}  // namespace kva
