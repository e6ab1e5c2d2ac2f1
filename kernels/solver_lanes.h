// Dense linear algebra on the device, in f64, as a fit of bases needs it (compressors/device_subspace.h):
// matrices are row-major without gaps, and those of one job, all of one shape, lie one behind the other.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/device_page.h"
#include "kernels/host_device.h"
#include "kernels/random.h"
#include "kernels/unpack_lanes.h"

namespace kva {

// Dense rows of pages as matrices: a token's numbers are those of `cells` rows side by side.
struct WidenRowsJob {
  SideKind kind = SideKind::kF16;  // dense
  int32_t cells = 1;
  int32_t width = 0;                       // of a cell
  int64_t tokens = 0;                      // rows of a matrix
  int64_t count = 0;                       // of matrices
  const std::byte* const* rows = nullptr;  // [count, tokens, cells]
  double* out = nullptr;                   // [count, tokens, cells * width]
  double* squares = nullptr;               // [count, tokens]: of each row, its squared length
};

// Row `row` of all matrices' rows. One warp.
template <class Warp>
KVA_LANE_CODE void widen_row(Warp& warp, const WidenRowsJob& job, int64_t row) {
  const int32_t joined = job.cells * job.width;
  double square = 0.0;
  for (int32_t column = warp.lane(); column < joined; column += 32) {
    const int32_t cell = column / job.width;
    const double x = static_cast<double>(
        dense_number(job.kind, job.rows[row * job.cells + cell], column - cell * job.width));
    job.out[row * joined + column] = x;
    square += x * x;
  }
  for (int mask = 16; mask > 0; mask /= 2) square += warp.shuffle_xor(square, mask);
  if (warp.lane() == 0) job.squares[row] = square;
}

// Matrices of normally distributed numbers: of each, those that SplitMix64 of its seed gives one after the
// other (Box and Muller).
struct NormalJob {
  const uint64_t* seeds = nullptr;  // [count]
  int64_t numbers = 0;              // of a matrix
  int64_t count = 0;
  double* out = nullptr;
};

KVA_HOST_DEVICE constexpr int64_t normal_pairs(const NormalJob& job) { return (job.numbers + 1) / 2; }

// Two neighbours; the last pair of a matrix may be one.
KVA_HOST_DEVICE inline void draw_pair(const NormalJob& job, int64_t index, int64_t pair) {
  constexpr double kTwoPi = 6.283185307179586476925286766559;
  SplitMix64 random(job.seeds[index], 2 * static_cast<uint64_t>(pair));
  const double radius = sqrt(-2.0 * log(1.0 - random.uniform()));  // 1 - uniform() is never 0
  const double angle = kTwoPi * random.uniform();
  double* out = job.out + index * job.numbers + 2 * pair;
  out[0] = radius * cos(angle);
  if (2 * pair + 1 < job.numbers) out[1] = radius * sin(angle);
}

// out = factor · A B, or with A or B transposed: A [rows, inner], B [inner, cols], out [rows, cols]. A
// transposed operand lies as it is before.
struct MatrixProduct {
  const double* a = nullptr;
  const double* b = nullptr;
  double* out = nullptr;
  int64_t rows = 0;
  int64_t inner = 0;
  int64_t cols = 0;
  bool transpose_a = false;
  bool transpose_b = false;
  double factor = 1.0;
  int64_t count = 1;
  int64_t a_stride = 0;  // numbers from one A to the next; 0: no gaps
};

// Rows become orthonormal ones: the first r of them span what the first r rows did, or more where those were
// dependent. rows <= length.
struct OrthonormalJob {
  double* matrices = nullptr;  // [count, rows, length]
  int64_t rows = 0;
  int64_t length = 0;
  int64_t count = 1;
};

// Symmetric matrices of finite numbers become their eigenvectors, one a row, by ascending eigenvalue.
struct EigenJob {
  double* matrices = nullptr;  // [count, size, size]
  double* values = nullptr;    // [count, size]
  int64_t size = 0;
  int64_t count = 1;
};

}  // namespace kva
