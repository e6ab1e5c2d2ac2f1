// MiniCache (arXiv 2405.14366): a side as the lengths of its tokens along directions that it shares with the
// same page of the neighbouring layer (its base), x̂ = ‖x‖ e / ‖e‖. Tokens farthest from their direction are
// kept whole.
#pragma once

#include <memory>

#include "runtime/kv/codec.h"

namespace kva {

// Payload: [tokens] lengths f16, then for ceil(retain * tokens) tokens their indices u16 and their rows f16.
// The base holds one direction a token, of any length but zero. 0 <= retain <= 1. encode() throws InputError
// for numbers that are not finite or lengths over f16's range.
std::shared_ptr<const SideCodec> make_minicache_codec(double retain);

}  // namespace kva
