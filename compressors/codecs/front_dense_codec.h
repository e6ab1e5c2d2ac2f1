// The first tokens of a page as f16, the rest in another codec: sinks in full precision (StreamingLLM, arXiv
// 2309.17453).
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/kv/codec.h"

namespace kva {

// Payload: [min(front, tokens), width] f16, then the inner codec's of the other tokens. The inner codec has
// no coordinates of its own.
std::shared_ptr<const SideCodec> make_front_dense_codec(int64_t front,
                                                        std::shared_ptr<const SideCodec> inner);

}  // namespace kva
