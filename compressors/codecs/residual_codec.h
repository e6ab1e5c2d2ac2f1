// A side in another codec's numbers plus a low-rank part of what that codec loses, x̂ = Q(x) + A B (GEAR,
// arXiv 2403.05527).
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/kv/codec.h"

namespace kva {

// Payload: Aᵀ [r, tokens] and B [r, width] f16 with r = min(rank, tokens, width), both counted as scales;
// then the inner codec's. B spans the leading right singular vectors of x - Q(x), A is (x - Q(x)) Bᵀ. Where
// f16 cannot hold a number of A, the nearest that it can is kept. The inner codec has no coordinates of its
// own.
std::shared_ptr<const SideCodec> make_residual_codec(int64_t rank, std::shared_ptr<const SideCodec> inner);

}  // namespace kva
