// Exact duplicates among pages as they are stored: found by XXH3 (128 bits), confirmed by comparing bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace kva {

// fetch(i, buffer) gives page i of `pages`, either its bytes where they lie or after copying them into
// `buffer` (page_bytes long). Returns how many pages equal an earlier one.
using FetchPage = std::function<const std::byte*(int64_t page, std::byte* buffer)>;
int64_t count_duplicates(int64_t pages, int64_t page_bytes, const FetchPage& fetch);

}  // namespace kva
