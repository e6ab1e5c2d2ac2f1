// Where the queries of one table look, in so few numbers that they can be drawn: what they gave to its keys,
// summed over blocks of queries and blocks of keys.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/backend/counted_vector.h"

namespace kva {

// Blocks a side at most. A block is a power of two of tokens, the smallest so that all positions have one: of
// a sequence of n tokens over half of the blocks are used, or n of them.
inline constexpr int kAttentionMapBins = 128;

class AttentionMap {
 public:
  explicit AttentionMap(const CountingAllocator<float>& allocator);

  // Positions [0, end) may be added to.
  void extend(int64_t end);
  // What the key got of queries in the query's block.
  void add(int64_t query, int64_t key, float mass) {
    cells_[static_cast<std::size_t>((query >> shift_) * kAttentionMapBins + (key >> shift_))] += mass;
  }

  int64_t block_tokens() const { return int64_t{1} << shift_; }
  // [kAttentionMapBins, kAttentionMapBins]: queries, keys. 0 where nothing was added.
  std::span<const float> cells() const { return {cells_.data(), cells_.size()}; }

 private:
  void fold();

  int shift_ = 0;
  CountedVector<float> cells_;
};

}  // namespace kva
