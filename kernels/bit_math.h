// Counting bits on the device, and where the host runs its lanes.
#pragma once

#include <cstdint>

#include "kernels/host_device.h"

namespace kva {

KVA_LANE_CODE inline uint32_t ones_of(uint64_t word) {
#if defined(__CUDACC__)
  return static_cast<uint32_t>(__popcll(word));
#else
  return static_cast<uint32_t>(__builtin_popcountll(word));
#endif
}
KVA_LANE_CODE inline uint32_t ones_of(uint32_t word) {
#if defined(__CUDACC__)
  return static_cast<uint32_t>(__popc(word));
#else
  return static_cast<uint32_t>(__builtin_popcount(word));
#endif
}

// The lowest bit alone.
KVA_LANE_CODE inline uint32_t lowest_one(uint32_t word) { return word & (~word + 1u); }

}  // namespace kva
