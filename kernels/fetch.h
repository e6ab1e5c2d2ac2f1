// Asking for memory before it is read.
#pragma once

#include <hwy/cache_control.h>

#include <cstddef>
#include <cstdint>

namespace kva {

// Starts to bring `bytes` bytes into the cache; nothing where data is null. Much at once keeps other reads
// waiting.
inline void fetch(const std::byte* data, int64_t bytes) {
  constexpr int64_t kLine = 64;
  for (int64_t at = 0; data && at < bytes; at += kLine) hwy::Prefetch(data + at);
}

}  // namespace kva
