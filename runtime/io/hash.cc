#include "runtime/io/hash.h"

#include <fmt/format.h>
#include <xxhash.h>

namespace kva {

std::string bytes_hash(std::span<const std::byte> bytes) {
  const XXH128_hash_t digest = XXH3_128bits(bytes.data(), bytes.size());
  return fmt::format("xxh3:{:016x}{:016x}", digest.high64, digest.low64);
}

std::string text_hash(std::string_view text) { return bytes_hash(std::as_bytes(std::span(text))); }

}  // namespace kva
