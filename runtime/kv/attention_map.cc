#include "runtime/kv/attention_map.h"

#include <algorithm>

namespace kva {

AttentionMap::AttentionMap(const CountingAllocator<float>& allocator)
    : cells_(std::size_t{kAttentionMapBins} * kAttentionMapBins, 0.0f, allocator) {}

void AttentionMap::extend(int64_t end) {
  while (end > block_tokens() * kAttentionMapBins) fold();
}

// Blocks of twice as many tokens, in place: a cell is written after it was read.
void AttentionMap::fold() {
  constexpr int64_t kHalf = kAttentionMapBins / 2;
  const auto cell = [&](int64_t query, int64_t key) -> float& {
    return cells_[static_cast<std::size_t>(query * kAttentionMapBins + key)];
  };
  for (int64_t i = 0; i < kHalf; ++i)
    for (int64_t j = 0; j < kHalf; ++j)
      cell(i, j) = (cell(2 * i, 2 * j) + cell(2 * i, 2 * j + 1)) +
                   (cell(2 * i + 1, 2 * j) + cell(2 * i + 1, 2 * j + 1));
  for (int64_t i = 0; i < kAttentionMapBins; ++i)
    std::fill(&cell(i, i < kHalf ? kHalf : 0), &cell(i, 0) + kAttentionMapBins, 0.0f);
  ++shift_;
}

}  // namespace kva
