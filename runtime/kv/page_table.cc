#include "runtime/kv/page_table.h"

#include <algorithm>
#include <limits>

#include "kernels/check.h"

namespace kva {

// The four forms differ in length: 2, 4, 6 or 8 bytes a token.
PagePlaces::PagePlaces(const PageStore& store, const PageRef& ref) : tokens_(ref.tokens), start_(ref.start) {
  if (ref.where == kNoSide) return;
  const std::byte* at = store.places(ref.where);
  const int64_t bytes_each = store.width(ref.where) / tokens_;
  if (bytes_each > int64_t{sizeof(int32_t)}) {
    biases_ = reinterpret_cast<const float*>(at);
    at += tokens_ * int64_t{sizeof(float)};
  }
  if (bytes_each % int64_t{sizeof(int32_t)} == 0)
    wide_ = reinterpret_cast<const int32_t*>(at);
  else
    narrow_ = reinterpret_cast<const uint16_t*>(at);
}

int64_t PagePlaces::hidden_tokens() const {
  return biased() ? std::count(biases_, biases_ + tokens_, -std::numeric_limits<float>::infinity()) : 0;
}

std::vector<std::byte> packed_places(std::span<const int32_t> positions, std::span<const float> biases) {
  KVA_CHECK(!positions.empty() && (biases.empty() || biases.size() == positions.size()),
            "a bias for each position, or none");
  const bool biased = std::any_of(biases.begin(), biases.end(), [](float bias) { return bias != 0.0f; });
  const bool wide = int64_t{positions.back()} - positions.front() > UINT16_MAX;
  std::vector<std::byte> bytes;
  const auto put = [&](auto value) {
    const auto* at = reinterpret_cast<const std::byte*>(&value);
    bytes.insert(bytes.end(), at, at + sizeof(value));
  };
  if (biased) std::for_each(biases.begin(), biases.end(), put);
  for (const int32_t position : positions) {
    const int32_t offset = position - positions.front();
    if (wide)
      put(offset);
    else
      put(static_cast<uint16_t>(offset));
  }
  return bytes;
}

int64_t total_tokens(std::span<const PageRef> pages) {
  int64_t tokens = 0;
  for (const PageRef& ref : pages) tokens += ref.tokens;
  return tokens;
}

std::span<const PageRef> front_run(std::span<const PageRef> pages, int64_t tokens) {
  std::size_t count = 0;
  for (int64_t sum = 0; count < pages.size(); ++count) {
    sum += pages[count].tokens;
    if (count > 0 && sum > tokens) break;
  }
  return pages.first(count);
}

}  // namespace kva
