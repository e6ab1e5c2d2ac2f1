// A block of threads on the host: the team that kernels/pack_lanes.h asks for, one thread doing what all
// would, and the block of kernels/similarity_lanes.h, whose threads run after each other.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "kernels/pack_bare_job.h"
#include "kernels/staged_numbers.h"
#include "tests/kernels/host_warp.h"

namespace kva {

class HostBlock {
 public:
  explicit HostBlock(HostWarp& warp) : warp_(warp) {}

  // Threads come in any order from now on.
  void shuffle(unsigned seed) { random_.emplace(seed); }

  template <class Body>
  void each(int32_t count, const Body& body) {
    std::vector<int32_t> order(random_ ? static_cast<std::size_t>(count) : 0);
    std::iota(order.begin(), order.end(), 0);
    if (random_) std::shuffle(order.begin(), order.end(), *random_);
    for (int32_t i = 0; i < count; ++i) body(random_ ? order[static_cast<std::size_t>(i)] : i);
  }
  template <class Body>
  void warp(const Body& body) const {
    warp_.run([&](HostWarp::Lane& lane) { body(lane); });
  }
  // What threads share starts as bytes of ones.
  std::byte* shared() {
    if (shared_.empty()) shared_.assign(kMostBareShared / sizeof(FourWords), {{~0u, ~0u, ~0u, ~0u}});
    return reinterpret_cast<std::byte*>(shared_.data());
  }

  void add(uint64_t* to, uint64_t value) const { *to += value; }
  void add_one(uint64_t* to, uint64_t value) const { *to += value; }
  void join(uint32_t* to, uint32_t bits) const { *to |= bits; }
  uint32_t take(uint32_t* from, uint32_t count) const { return std::exchange(*from, *from + count); }
  void raise(int32_t* to, int32_t value) const { *to = std::max(*to, value); }
  void lower(int32_t* to, int32_t value) const { *to = std::min(*to, value); }
  uint64_t raise(uint64_t* to, uint64_t value) const { return std::exchange(*to, std::max(*to, value)); }

 private:
  HostWarp& warp_;
  std::optional<std::mt19937> random_;
  std::vector<FourWords> shared_;
};

}  // namespace kva
