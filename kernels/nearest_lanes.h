// The nearest centroid of a point on the device, as one warp finds it from a row of products.
#pragma once

#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/sampling_lanes.h"
#include "kernels/similarity_math.h"

namespace kva {

// nearest[p] = the first c with the least squares[c] - 2 dots(p, c), as least_distance() (kernels/nearest.h);
// distances[p] = ‖point p - centroid‖², from point_squares and that product.
struct NearestJob {
  const float* dots = nullptr;  // [points, centroids]
  int64_t points = 0;
  int32_t centroids = 0;                 // from 1 to kMostVocabulary
  const float* squares = nullptr;        // [centroids]
  const float* point_squares = nullptr;  // [points]
  int32_t* nearest = nullptr;            // [points]
  float* distances = nullptr;            // [points]
};

template <class Warp>
KVA_LANE_CODE void nearest_row(Warp& warp, const NearestJob& job, int64_t point) {
  const float* dots = job.dots + point * job.centroids;
  Likeliest best{float_of(0xff800000u), 0};
  for (int32_t c = warp.lane(); c < job.centroids; c += 32) {
    const Likeliest other{(dots[c] + dots[c]) - job.squares[c], c};
    if (other.logit > best.logit) best = other;
  }
  best = likeliest_of_warp(warp, best);
  if (warp.lane() != 0) return;
  job.nearest[point] = best.token;
  job.distances[point] =
      squared_distance(job.point_squares[point], job.squares[best.token], dots[best.token]);
}

}  // namespace kva
