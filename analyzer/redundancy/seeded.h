// Seeded random numbers that are the same on every machine and compiler (std::shuffle and the standard
// distributions are not): SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace kva {

class SeededRandom {
 public:
  // Different streams of one seed are independent for our purposes.
  SeededRandom(uint64_t seed, uint64_t stream) : state_(seed + 0x9e3779b97f4a7c15u * (2 * stream + 1)) {
    next();
  }

  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  // In [0, bound), bound >= 1. The bias of the remainder is below 2^-32 for the bounds met here.
  int64_t below(int64_t bound) { return static_cast<int64_t>(next() % static_cast<uint64_t>(bound)); }

 private:
  uint64_t state_;
};

// Fisher and Yates on values[first, last).
inline void shuffle_range(std::vector<int64_t>& values, int64_t first, int64_t last, SeededRandom& random) {
  for (int64_t i = last - 1; i > first; --i) {
    const int64_t j = first + random.below(i - first + 1);
    std::swap(values[static_cast<std::size_t>(i)], values[static_cast<std::size_t>(j)]);
  }
}

}  // namespace kva
