// Many small QR decompositions at once on the device: one block each, by Householder's reflections.
//
// A Team is the threads of a block: rows(first, end, f) hands f a warp (kernels/attention_keys.h) and each
// row of [first, end) in turn; behind it all see what all have written.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/solver_lanes.h"

namespace kva {

// Whether orthonormalize_block() is the way: larger matrices fill a device one by one.
KVA_HOST_DEVICE constexpr bool takes_blocks(const OrthonormalJob& job) {
  return job.count > 1 && job.rows <= 256;
}

// Σ a[i] b[i], the same on all lanes.
template <class Warp>
KVA_LANE_CODE double dot_of(Warp& warp, const double* a, const double* b, int64_t count) {
  double sum = 0.0;
  for (int64_t i = warp.lane(); i < count; i += 32) sum += a[i] * b[i];
  for (int mask = 16; mask > 0; mask /= 2) sum += warp.shuffle_xor(sum, mask);
  return sum;
}

// x becomes the unit vector v of the reflection I - 2 v vᵀ that takes x to its first coordinate; 0, none,
// where x is 0.
template <class Warp>
KVA_LANE_CODE void make_reflection(Warp& warp, double* x, int64_t count) {
  const double square = dot_of(warp, x, x, count);
  if (!(square > 0.0)) return;
  const double length = sqrt(square);
  const double front = x[0];
  // Away from what is there, so that nothing cancels.
  const double moved = front < 0.0 ? front - length : front + length;
  const double scale = 1.0 / sqrt(square - front * front + moved * moved);
  warp.sync();  // all have read the front
  for (int64_t i = warp.lane(); i < count; i += 32) x[i] = (i == 0 ? moved : x[i]) * scale;
  warp.sync();
}

template <class Warp>
KVA_LANE_CODE void reflect(Warp& warp, const double* v, double* x, int64_t count) {
  const double twice = 2.0 * dot_of(warp, v, x, count);
  for (int64_t i = warp.lane(); i < count; i += 32) x[i] -= twice * v[i];
  warp.sync();
}

// Matrix `index` of the job.
template <class Team>
KVA_LANE_CODE void orthonormalize_block(Team& team, const OrthonormalJob& job, int64_t index) {
  double* matrix = job.matrices + index * job.rows * job.length;
  const auto from = [&](int64_t row, int64_t column) { return matrix + row * job.length + column; };
  for (int64_t k = 0; k < job.rows; ++k) {
    const int64_t count = job.length - k;
    team.rows(k, k + 1, [&](auto& warp, int64_t row) { make_reflection(warp, from(row, k), count); });
    team.rows(k + 1, job.rows,
              [&](auto& warp, int64_t row) { reflect(warp, from(k, k), from(row, k), count); });
  }
  // The reflections' product, from the last on: what is before a row's own coordinate is 0 until the
  // reflection of that coordinate comes, and belongs to R till then.
  for (int64_t k = job.rows - 1; k >= 0; --k) {
    const int64_t count = job.length - k;
    team.rows(k + 1, job.rows, [&](auto& warp, int64_t row) {
      if (warp.lane() == 0) *from(row, k) = 0.0;
      warp.sync();
      reflect(warp, from(k, k), from(row, k), count);
    });
    team.rows(k, k + 1, [&](auto& warp, int64_t row) {
      double* q = from(row, k);
      const double twice = 2.0 * q[0];
      warp.sync();
      for (int64_t i = warp.lane(); i < count; i += 32) q[i] = (i == 0 ? 1.0 : 0.0) - twice * q[i];
    });
  }
}

}  // namespace kva
