// Seeded streams of random numbers, and shuffles from them.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/random.h"

namespace kva {

class SeededRandom {
 public:
  // Different streams of one seed are independent for our purposes: their states are not a few steps apart.
  SeededRandom(uint64_t seed, uint64_t stream) : random_(seed + SplitMix64(~stream).next()) {}

  uint64_t next() { return random_.next(); }

  // In [0, bound), bound >= 1. The bias of the remainder is below 2^-32 for the bounds met here.
  int64_t below(int64_t bound) { return static_cast<int64_t>(next() % static_cast<uint64_t>(bound)); }

 private:
  SplitMix64 random_;
};

// Fisher and Yates on values[first, last).
inline void shuffle_range(std::vector<int64_t>& values, int64_t first, int64_t last, SeededRandom& random) {
  for (int64_t i = last - 1; i > first; --i) {
    const int64_t j = first + random.below(i - first + 1);
    std::swap(values[static_cast<std::size_t>(i)], values[static_cast<std::size_t>(j)]);
  }
}

}  // namespace kva
