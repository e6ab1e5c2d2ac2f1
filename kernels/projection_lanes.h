// Coefficients of dense rows on bases, on the device: of rows that stand side by side in several pages, on
// one basis for all of them. What a basis that is rounded to f16 loses by that is put back, as
// compressors/codecs/lowrank_codec.h does on the CPU.
//
// Four passes, each of items that know nothing of each other: c = x Bᵀ; x - c B; c += (x - c B) Bᵀ; lengths.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/device_page.h"
#include "kernels/host_device.h"
#include "kernels/scale_math.h"
#include "kernels/unpack_lanes.h"

namespace kva {

struct ProjectionSide {
  const std::byte* const* rows = nullptr;  // [tokens, cells]: where the dense rows of a token are
  const uint16_t* basis = nullptr;         // f16 [cells, rank, width]
  float* coefficients = nullptr;           // [tokens, rank]
  float* residual = nullptr;               // scratch, [tokens, cells * width]
};

struct ProjectionJob {
  SideKind source_kind = SideKind::kF16;  // dense
  int32_t cells = 1;
  int32_t width = 0;  // of a cell
  int32_t rank = 0;
  int32_t tokens = 0;
  const ProjectionSide* sides = nullptr;
  int32_t count = 0;
  // Of each side, or null: the squared lengths of its rows' residual and of its rows, [count, 2].
  double* lengths = nullptr;
  // Becomes 1 where a coefficient is not finite or beyond f16.
  int32_t* refused = nullptr;

  KVA_HOST_DEVICE int32_t joined() const { return cells * width; }
};

// Tokens that an item takes together.
inline constexpr int32_t kProjectedTokens = 16;

KVA_HOST_DEVICE constexpr int32_t projected_tiles(const ProjectionJob& job) {
  return (job.tokens + kProjectedTokens - 1) / kProjectedTokens;
}

// Floats of scratch and result that a side takes.
KVA_HOST_DEVICE constexpr int64_t projection_numbers(const ProjectionJob& job) {
  return int64_t{job.tokens} * (int64_t{job.cells} * job.width + job.rank);
}

// Column `column` of the joined row of a token.
KVA_HOST_DEVICE inline float joined_number(const ProjectionJob& job, const ProjectionSide& side,
                                           int32_t token, int32_t column) {
  const int32_t cell = column / job.width;
  return dense_number(job.source_kind, side.rows[int64_t{token} * job.cells + cell],
                      column - cell * job.width);
}

// Where the basis vector `r` has the column.
KVA_HOST_DEVICE inline float basis_number(const ProjectionJob& job, const ProjectionSide& side, int32_t r,
                                          int32_t column) {
  const int32_t cell = column / job.width;
  const int32_t of_cell = column - cell * job.width;
  return f16_value(side.basis[(int64_t{cell} * job.rank + r) * job.width + of_cell]);
}

// Products of the vector `r` with the tokens of tile `tile`: those of the rows, and in a second pass, with
// what the first left of them, their correction. One warp.
template <bool kCorrects, class Warp>
KVA_LANE_CODE void project_tile(Warp& warp, const ProjectionJob& job, int32_t index, int32_t tile,
                                int32_t r) {
  const ProjectionSide& side = job.sides[index];
  const int32_t first = tile * kProjectedTokens;
  const int32_t tokens = smaller(kProjectedTokens, job.tokens - first);
  const int32_t joined = job.joined();
  float sums[kProjectedTokens] = {};
  for (int32_t column = warp.lane(); column < joined; column += 32) {
    const float b = basis_number(job, side, r, column);
    KVA_UNROLL
    for (int32_t t = 0; t < kProjectedTokens; ++t)
      if (t < tokens)
        sums[t] += b * (kCorrects ? side.residual[int64_t{first + t} * joined + column]
                                  : joined_number(job, side, first + t, column));
  }
  KVA_UNROLL
  for (int32_t t = 0; t < kProjectedTokens; ++t)
    if (t < tokens)  // the same for all lanes
      for (int mask = 16; mask > 0; mask /= 2) sums[t] += warp.shuffle_xor(sums[t], mask);
  if (warp.lane() != 0) return;
  KVA_UNROLL
  for (int32_t t = 0; t < kProjectedTokens; ++t) {
    if (t >= tokens) break;
    float& coefficient = side.coefficients[int64_t{first + t} * job.rank + r];
    coefficient = kCorrects ? coefficient + sums[t] : sums[t];
    if (kCorrects && !(fabsf(coefficient) <= 65504.0f)) *job.refused = 1;
  }
}

// What the coefficients leave of column `column` of the tile's tokens.
KVA_HOST_DEVICE inline void leave_tile(const ProjectionJob& job, int32_t index, int32_t tile,
                                       int32_t column) {
  const ProjectionSide& side = job.sides[index];
  const int32_t first = tile * kProjectedTokens;
  const int32_t tokens = smaller(kProjectedTokens, job.tokens - first);
  float sums[kProjectedTokens] = {};
  KVA_UNROLL
  for (int32_t t = 0; t < kProjectedTokens; ++t)
    if (t < tokens) sums[t] = joined_number(job, side, first + t, column);
  for (int32_t r = 0; r < job.rank; ++r) {
    const float b = basis_number(job, side, r, column);
    KVA_UNROLL
    for (int32_t t = 0; t < kProjectedTokens; ++t)
      if (t < tokens) sums[t] -= side.coefficients[int64_t{first + t} * job.rank + r] * b;
  }
  KVA_UNROLL
  for (int32_t t = 0; t < kProjectedTokens; ++t)
    if (t < tokens) side.residual[int64_t{first + t} * job.joined() + column] = sums[t];
}

// The lengths of side `index`. One warp.
template <class Warp>
KVA_LANE_CODE void measure_projection(Warp& warp, const ProjectionJob& job, int32_t index) {
  const ProjectionSide& side = job.sides[index];
  const int32_t joined = job.joined();
  double left = 0.0;
  double whole = 0.0;
  for (int32_t token = 0; token < job.tokens; ++token)
    for (int32_t column = warp.lane(); column < joined; column += 32) {
      const double rest = static_cast<double>(side.residual[int64_t{token} * joined + column]);
      const double x = static_cast<double>(joined_number(job, side, token, column));
      left += rest * rest;
      whole += x * x;
    }
  for (int mask = 16; mask > 0; mask /= 2) {
    left += warp.shuffle_xor(left, mask);
    whole += warp.shuffle_xor(whole, mask);
  }
  if (warp.lane() != 0) return;
  job.lengths[int64_t{2} * index] = left;
  job.lengths[int64_t{2} * index + 1] = whole;
}

}  // namespace kva
