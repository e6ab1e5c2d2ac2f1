// A side stored in turned coordinates: another codec holds y = Π x for an orthogonal Π. Attention turns its
// queries instead of the tokens, and its sums back, once for a run of pages.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/kv/codec.h"
#include "runtime/kv/side_memory.h"

namespace kva {

// A random orthogonal matrix [width, width], row-major: Gram and Schmidt's of normal numbers.
std::vector<float> random_rotation(int64_t width, uint64_t seed);

// How the codec is read: in turned coordinates, or, where another codec reads it that knows of none, turned
// back first.
enum class TurnedReading { kTurned, kTurnedBack };

// rotation: f16 [width, width]. The inner codec has no coordinates of its own.
std::shared_ptr<const SideCodec> make_rotation_codec(std::shared_ptr<const SideCodec> inner,
                                                     std::shared_ptr<const SideArray> rotation,
                                                     TurnedReading reading);

}  // namespace kva
