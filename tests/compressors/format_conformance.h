// What must hold for every codec that stores a page by itself.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/kv/codec.h"

namespace kva {

// Encodes rows [tokens, width] into guarded memory; the payload.
std::vector<std::byte> encoded(const SideCodec& codec, const std::vector<float>& rows, int64_t tokens,
                               int64_t width);
std::vector<float> decoded(const SideCodec& codec, const std::vector<std::byte>& payload, int64_t tokens,
                           int64_t width);

// bytes() as promised, the same bytes twice, scores and sums as those of the decoded page (within f32
// rounding), for 1, 3 and 16 queries, nothing written beside outputs and scratch. Pages of 0, 1, 7 and 64
// tokens.
void expect_conforming(const SideCodec& codec, int64_t width, uint64_t seed);

}  // namespace kva
