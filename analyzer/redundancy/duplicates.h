// Exact duplicates among pages as they are stored: found by XXH3 (128 bits), confirmed by comparing bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "kernels/duplicates_lanes.h"
#include "runtime/backend/backend.h"

namespace kva {

// fetch(i, buffer) gives page i of `pages`, either its bytes where they lie or after copying them into
// `buffer` (page_bytes long). Returns how many pages equal an earlier one.
using FetchPage = std::function<const std::byte*(int64_t page, std::byte* buffer)>;
int64_t count_duplicates(int64_t pages, int64_t page_bytes, const FetchPage& fetch);

// The same on a device, with a 64-bit hash; `pages` are the host's, in `groups` groups of pages.heads pages.
// Throws InputError where backend.device(), which is not null, has not the memory.
inline constexpr int64_t kMostDevicePages = std::numeric_limits<int32_t>::max();
int64_t count_duplicates_on_device(const PageTokens& pages, int64_t groups, Backend& backend);

}  // namespace kva
