// Which pages could be freed, since a kept page before them is over a threshold, on a device: the analyzer's
// leader clustering (analyzer/redundancy/cover.h), tile by tile.
//
// `Block` and `Warp` as in kernels/similarity_lanes.h; join(to, bits) sets bits of 32.
#pragma once

#include <cstdint>

#include "kernels/cover_job.h"
#include "kernels/similarity_lanes.h"

namespace kva {

KVA_LANE_CODE inline uint32_t over_thresholds(const CoverJob& job, float cosine, float l2) {
  uint32_t over = 0;
  for (int32_t t = 0; t < job.threshold_count; ++t) {
    over |= static_cast<uint32_t>(cosine > job.thresholds[t]) << t;
    over |= static_cast<uint32_t>(l2 > job.thresholds[t]) << (kMaxThresholds + t);
  }
  return over;
}

template <class Block>
KVA_LANE_CODE void put_over(Block& block, const CoverJob& job, int32_t r, int32_t c, uint32_t over) {
  if (job.same_pages()) {
    job.over[int64_t{r} * job.columns + c] = static_cast<uint16_t>(over);
    return;
  }
  over &= ~job.freed[job.column + c] & ~job.freed[job.row + r];
  if (over != 0) block.join(job.freed + job.row + r, over);
}

// One pair, from its product where that is exact enough.
template <class Block>
KVA_LANE_CODE void cover_pair(Block& block, const CoverJob& job, int32_t r, int32_t c) {
  const int32_t i = job.row + r, j = job.column + c;
  if (j >= i) return;
  const int64_t at = int64_t{r} * job.columns + c;
  float values[3];
  float distance;
  if (product_values(job.norms, i, j, job.dots[at], values, distance))
    put_over(block, job, r, c, over_thresholds(job, values[0], values[2]));
  else
    job.near[block.take(job.near_count, 1u)] = static_cast<uint32_t>(at);
}

// Pair `index` of those that job.near holds.
template <class Warp, class Block>
KVA_LANE_CODE void cover_near_pair(Warp& warp, Block& block, const CoverJob& job, uint32_t index) {
  const auto r = static_cast<int32_t>(job.near[index] / static_cast<uint32_t>(job.columns));
  const auto c = static_cast<int32_t>(job.near[index] % static_cast<uint32_t>(job.columns));
  float values[3];
  float distance;
  exact_values(warp, job.exact, job.row + r, job.column + c, values, distance);
  if (warp.lane() == 0) put_over(block, job, r, c, over_thresholds(job, values[0], values[2]));
}

// By what the kept ones of the pages before row r free it, as far as one thread looks. freed: of the job's
// pages, decided before r.
KVA_LANE_CODE inline uint32_t freed_by_earlier(const CoverJob& job, const uint32_t* freed, int32_t r,
                                               int32_t thread, int32_t threads) {
  const uint16_t* over = job.over + int64_t{r} * job.columns;
  uint32_t found = 0;
  for (int32_t c = thread; c < r; c += threads) found |= over[c] & ~freed[c];
  return found;
}

}  // namespace kva
