// A side in rotated coordinates: each token is multiplied by a Hadamard matrix before another codec stores
// it.
#pragma once

#include <memory>

#include "runtime/kv/codec.h"

namespace kva {

// Tokens of a power of two of numbers only. Attention rotates its queries and sums instead of the page.
std::shared_ptr<const SideCodec> make_hadamard_codec(std::shared_ptr<const SideCodec> inner);

}  // namespace kva
