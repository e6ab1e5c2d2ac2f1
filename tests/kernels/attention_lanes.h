// Attention as the device launches it, lane by lane on the host.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/attention_coordinates.h"
#include "kernels/attention_general.h"
#include "kernels/attention_narrow.h"
#include "kernels/attention_observe.h"
#include "tests/kernels/host_tile_team.h"
#include "tests/kernels/host_warp.h"

namespace kva {

// The kernels' choice of code for a narrow item.
template <bool kKept>
struct NarrowByLanes {
  HostWarp& warp;
  const AttentionJob& job;
  const AttentionItem& item;

  template <SideKind keys, SideKind values>
  void run() const {
    NarrowMemory memory;
    for (auto& row : memory.scores)
      std::fill(std::begin(row), std::end(row), std::numeric_limits<float>::quiet_NaN());
    std::fill(std::begin(memory.tokens), std::end(memory.tokens), 1 << 24);
    std::fill(std::begin(memory.pages), std::end(memory.pages), 1 << 24);
    warp.run([&](HostWarp::Lane& lane) {
      with_tensor_width(job.head_dim, [&](auto width) {
        constexpr bool kAlike = are_alike(keys, values);
        if constexpr (kKept ? (kAlike ? is_packed(keys) : mixes_narrow(static_cast<int32_t>(width))) : kAlike)
          attend_narrow_item<keys, values, width, kKept>(lane, job, item, memory);
      });
    });
  }
};

// As DeviceOps::attend(). Shared memory starts as NaN: what nobody wrote shows. kTurns: as attend_item() has
// it.
template <bool kTurns>
void attend_by_lanes(HostWarp& warp, const AttentionGrid& grid, const AttentionJob& job,
                     const AttentionMerge* merges, float* out, int64_t out_stride) {
  std::vector<float> shared(
      static_cast<std::size_t>(std::max<int64_t>(attention_shared_values(job), kCoordinateShared)));
  const auto run = [&](const auto& body) {
    std::fill(shared.begin(), shared.end(), std::numeric_limits<float>::quiet_NaN());
    warp.run(body);
  };
  for (int32_t i = 0; i < grid.projections; ++i)
    for (int32_t row = 0; row < job.projections[i].rows; row += kItemRows)
      run([&](HostWarp::Lane& lane) { project_rows(lane, job, job.projections[i], row, shared.data()); });
  HostTileBlock tiles;
  for (const AttentionBucket& bucket : grid.buckets)
    for (int32_t i = 0; i < bucket.count; ++i) {
      const AttentionItem& item = job.items[bucket.first + i];
      if (bucket.tiles != TileKind::kNone) {
        tiles.run(job, bucket, item);
        continue;
      }
      if (bucket.narrow != NarrowKind::kNone) {
        KVA_CHECK(job.turning == KeyTurning::kNone, "keys that need no turning");
        if (bucket.narrow == NarrowKind::kKept)
          with_narrow_pair(bucket.keys, bucket.values, NarrowByLanes<true>{warp, job, item});
        else
          with_narrow_pair(bucket.keys, bucket.values, NarrowByLanes<false>{warp, job, item});
        continue;
      }
      run([&](HostWarp::Lane& lane) {
        if (bucket.general || (has_levels(bucket.keys) && job.turning != KeyTurning::kNone))
          attend_general_item(lane, job, item, shared.data());
        else if (has_levels(bucket.keys))
          attend_item(lane, job, AnyKind{bucket.keys}, AnyKind{bucket.values}, item, shared.data());
        else
          attend_item<kTurns>(lane, job, bucket.keys, bucket.values, item, shared.data());
      });
    }
  for (int32_t i = 0; i < grid.lifts; ++i)
    for (int32_t row = 0; row < job.lifts[i].rows; row += kItemRows)
      run([&](HostWarp::Lane& lane) { lift_rows(lane, job, job.lifts[i], row, shared.data()); });
  for (int32_t i = 0; i < grid.tables; ++i)
    for (int32_t row = 0; row < merges[i].rows; ++row) {
      float* to = out + result_at(merges[i], row, job.group, job.head_dim, out_stride);
      for (int32_t c = 0; c < job.head_dim; ++c)
        to[c] = merged_value(merges[i], row, c, job.head_dim, job.state_values, job.state_max, job.state_sum);
      if (job.masses.pages) put_finals(merges[i], row, job);
    }
  if (grid.tables == 0 || !job.masses.pages) return;
  for (int32_t entry = 0; entry < job.masses.count; ++entry)
    run([&](HostWarp::Lane& lane) { observe_page(lane, job, entry, shared.data()); });
}

}  // namespace kva
