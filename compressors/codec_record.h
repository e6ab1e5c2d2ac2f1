// Codecs as files name them: what CodecSpec says, as JSON, and codecs made again from JSON that a stranger
// may have written.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <vector>

#include "runtime/io/json.h"
#include "runtime/kv/codec.h"
#include "runtime/kv/side_memory.h"

namespace kva {

// Codecs inside one another, at most.
inline constexpr int kDeepestCodec = 8;

// The codec's record; the codecs inside it and the arrays go by these indices. Its member "name" is for
// readers only. The codec has a spec().
nlohmann::ordered_json codec_record_json(const SideCodec& codec, std::span<const int64_t> inner,
                                         std::span<const int64_t> arrays);

struct ReadCodec {
  std::shared_ptr<const SideCodec> codec;
  int depth = 1;
};

// The codec of a record that builds on `earlier` ones and `arrays`. Throws InputError for what
// codec_record_json() does not write: kinds that are not known, parameters out of their range, codecs that do
// not go together.
ReadCodec read_codec(const JsonNode& record, std::span<const ReadCodec> earlier,
                     std::span<const std::shared_ptr<const SideArray>> arrays);

}  // namespace kva
