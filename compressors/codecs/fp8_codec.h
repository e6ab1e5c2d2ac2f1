// Numbers rounded to 8-bit floats (kernels/fp8.h).
#pragma once

#include <memory>

#include "kernels/fp8.h"
#include "runtime/kv/codec.h"

namespace kva {

// Payload: rows [tokens, width], a byte a number.
std::shared_ptr<const SideCodec> make_fp8_codec(Fp8 type);

}  // namespace kva
