// Random numbers that are the same on every machine and compiler; std::shuffle and the standard distributions
// are not.
#pragma once

#include <cstdint>

#include "kernels/host_device.h"

namespace kva {

// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
class SplitMix64 {
 public:
  // skipped: so many numbers of the seed are behind it already.
  KVA_HOST_DEVICE explicit SplitMix64(uint64_t seed, uint64_t skipped = 0) : state_(seed + skipped * kStep) {}
  KVA_HOST_DEVICE uint64_t next() {
    uint64_t z = (state_ += kStep);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // Uniform in [0, 1): the upper 53 bits.
  KVA_HOST_DEVICE double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  static constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;
  uint64_t state_;
};

}  // namespace kva
