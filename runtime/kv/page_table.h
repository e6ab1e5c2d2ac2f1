// Page tables: which pages a (sequence, layer, KV head) reads, and where their tokens stand.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/backend/counted_vector.h"
#include "runtime/kv/page_store.h"

namespace kva {

// Token j of the page stands at position start + j; where tokens were dropped or merged, at places(...)[j].
struct PageRef {
  SideId k = kNoSide;
  SideId v = kNoSide;
  SideId where = kNoSide;  // the places of a page with gaps; no side: contiguous
  int32_t tokens = 0;
  int32_t start = 0;  // position of the first token

  int64_t end() const { return int64_t{start} + tokens; }  // of a contiguous page
};

// The places of a page with gaps, packed as a side of PageStore::kPlaces: [tokens] positions, then [tokens]
// biases. A bias is added to the token's score: log n where it stands for n tokens.
struct PagePlaces {
  const int32_t* positions = nullptr;
  const float* biases = nullptr;
};
inline int64_t places_bytes(int64_t tokens) { return tokens * 8; }
PagePlaces page_places(const PageStore& store, const PageRef& ref);

int64_t total_tokens(std::span<const PageRef> pages);
// The longest front of `pages` with at most `tokens` tokens, and at least one page.
std::span<const PageRef> front_run(std::span<const PageRef> pages, int64_t tokens);

// In order of position. Only the last page can be open, that is, take further tokens.
struct PageTable {
  explicit PageTable(const CountingAllocator<PageRef>& allocator) : pages(allocator) {}

  CountedVector<PageRef> pages;
  int64_t end = 0;  // tokens seen: the position of the next one
  bool open = false;
};

}  // namespace kva
