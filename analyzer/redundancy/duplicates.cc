#include "analyzer/redundancy/duplicates.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace kva {
namespace {

struct HashedPage {
  XXH128_hash_t hash;
  int64_t page;

  std::pair<uint64_t, uint64_t> key() const { return {hash.high64, hash.low64}; }
};

}  // namespace

int64_t count_duplicates(int64_t pages, int64_t page_bytes, const FetchPage& fetch) {
  std::vector<std::byte> buffer(static_cast<std::size_t>(page_bytes));
  std::vector<std::byte> other_buffer(buffer.size());
  std::vector<HashedPage> hashed;
  hashed.reserve(static_cast<std::size_t>(pages));
  for (int64_t page = 0; page < pages; ++page)
    hashed.push_back({XXH3_128bits(fetch(page, buffer.data()), buffer.size()), page});
  std::sort(hashed.begin(), hashed.end(), [](const HashedPage& a, const HashedPage& b) {
    return a.key() != b.key() ? a.key() < b.key() : a.page < b.page;
  });
  int64_t duplicates = 0;
  std::size_t first = 0;  // the first page of a run of equal hashes
  for (std::size_t k = 1; k < hashed.size(); ++k) {
    if (hashed[k].key() != hashed[first].key()) {
      first = k;
      continue;
    }
    const std::byte* a = fetch(hashed[first].page, buffer.data());
    const std::byte* b = fetch(hashed[k].page, other_buffer.data());
    duplicates += std::memcmp(a, b, buffer.size()) == 0;
  }
  return duplicates;
}

}  // namespace kva
