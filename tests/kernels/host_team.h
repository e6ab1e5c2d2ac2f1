// The team that kernels/pack_lanes.h asks for, on the host: one thread does what all would.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/pack_bare.h"
#include "tests/kernels/host_warp.h"

namespace kva {

class HostTeam {
 public:
  explicit HostTeam(HostWarp& warp) : warp_(warp) {}
  template <class Body>
  void each(int32_t count, const Body& body) const {
    for (int32_t i = 0; i < count; ++i) body(i);
  }
  template <class Body>
  void warp(const Body& body) const {
    warp_.run([&](HostWarp::Lane& lane) { body(lane); });
  }
  std::byte* shared() { return reinterpret_cast<std::byte*>(shared_.data()); }

 private:
  HostWarp& warp_;
  std::vector<FourWords> shared_ = std::vector<FourWords>(kMostBareShared / sizeof(FourWords), kPoison);
  static constexpr FourWords kPoison = {{~0u, ~0u, ~0u, ~0u}};
};

}  // namespace kva
