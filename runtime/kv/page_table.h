// Page tables: which pages a (sequence, layer, KV head) reads, and where their tokens stand.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/backend/counted_vector.h"
#include "runtime/kv/page_store.h"

namespace kva {

// Token j of the page stands at position start + j; where tokens were dropped or merged, at
// PagePlaces::position(j).
struct PageRef {
  SideId k = kNoSide;
  SideId v = kNoSide;
  SideId where = kNoSide;  // the places of a page with gaps; no side: contiguous
  int32_t tokens = 0;
  int32_t start = 0;  // position of the first token

  int64_t end() const { return int64_t{start} + tokens; }  // of a contiguous page
};

// Where the tokens of a page stand, and what is added to their scores: log n for a token that stands for n,
// -inf for one that is hidden. Of a page with gaps they are read from the side that packed_places() made: f32
// biases unless all are 0, then offsets from the page's start, 16 bits wide where they fit, else 32.
class PagePlaces {
 public:
  PagePlaces(const PageStore& store, const PageRef& ref);

  int64_t tokens() const { return tokens_; }
  int32_t position(int64_t token) const {
    if (narrow_) return start_ + int32_t{narrow_[token]};
    return start_ + (wide_ ? wide_[token] : static_cast<int32_t>(token));
  }
  int32_t last_position() const { return position(tokens_ - 1); }
  // Where they are not, all biases are 0.
  bool biased() const { return biases_ != nullptr; }
  // Whether offsets are 32 bits wide.
  bool wide() const { return wide_ != nullptr; }
  float bias(int64_t token) const { return biased() ? biases_[token] : 0.0f; }
  int64_t hidden_tokens() const;

 private:
  int64_t tokens_;
  int32_t start_;
  const float* biases_ = nullptr;
  const uint16_t* narrow_ = nullptr;
  const int32_t* wide_ = nullptr;
};

// positions: ascending. biases: one a position, or none where all are 0.
std::vector<std::byte> packed_places(std::span<const int32_t> positions, std::span<const float> biases);

int64_t total_tokens(std::span<const PageRef> pages);
// The longest front of `pages` with at most `tokens` tokens, and at least one page.
std::span<const PageRef> front_run(std::span<const PageRef> pages, int64_t tokens);

// In order of position. Only the last page can be open, that is, take further tokens.
struct PageTable {
  explicit PageTable(const CountingAllocator<PageRef>& allocator) : pages(allocator) {}

  CountedVector<PageRef> pages;
  int64_t end = 0;  // tokens seen: the position of the next one
  bool open = false;
  // The first page that changed since whoever keeps a copy of the table (device_tables.h) took it.
  int32_t changed_from = 0;

  void changed(int64_t page) { changed_from = static_cast<int32_t>(std::min<int64_t>(changed_from, page)); }
};

}  // namespace kva
