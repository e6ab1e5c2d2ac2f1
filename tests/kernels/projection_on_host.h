// A device's projection (kernels/projection_lanes.h) by loops: its passes one after the other.
#pragma once

#include <cstdint>

#include "kernels/projection_lanes.h"
#include "tests/kernels/host_warp.h"

namespace kva {

inline void project_on_host(HostWarp& warp, const ProjectionJob& job) {
  const auto each = [&](int32_t items, const auto& body) {
    for (int32_t side = 0; side < job.count; ++side)
      for (int32_t tile = 0; tile < projected_tiles(job); ++tile)
        for (int32_t item = 0; item < items; ++item) body(side, tile, item);
  };
  each(job.rank, [&](int32_t side, int32_t tile, int32_t r) {
    warp.run([&](HostWarp::Lane& lane) { project_tile<false>(lane, job, side, tile, r); });
  });
  each(job.joined(),
       [&](int32_t side, int32_t tile, int32_t column) { leave_tile(job, side, tile, column); });
  each(job.rank, [&](int32_t side, int32_t tile, int32_t r) {
    warp.run([&](HostWarp::Lane& lane) { project_tile<true>(lane, job, side, tile, r); });
  });
  for (int32_t side = 0; job.lengths && side < job.count; ++side)
    warp.run([&](HostWarp::Lane& lane) { measure_projection(lane, job, side); });
}

}  // namespace kva
