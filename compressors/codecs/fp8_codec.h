// Numbers rounded to 8-bit floats (FP8 Formats for Deep Learning, arXiv 2209.05433; OCP's spelling): e4m3fn
// up to 448, e5m2 up to 57,344. Rounds to nearest even; what is larger becomes the largest; e4m3 has no
// infinity.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/kv/codec.h"

namespace kva {

enum class Fp8 : uint8_t { kE4M3, kE5M2 };

uint8_t fp8_from_f32(float value, Fp8 type);  // NaN stays NaN
float f32_from_fp8(uint8_t bits, Fp8 type);

// Payload: rows [tokens, width], a byte a number.
std::shared_ptr<const SideCodec> make_fp8_codec(Fp8 type);

}  // namespace kva
