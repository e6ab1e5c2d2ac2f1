// Queries brought to the coordinates in which pages are read, and sums brought back from them, by one warp
// for every kItemRows rows.
#pragma once

#include <cstdint>

#include "kernels/attention_warp.h"
#include "kernels/encode_lanes.h"

namespace kva {

// Floats of shared memory that one warp needs: some queries, or a row that is turned.
inline constexpr int32_t kCoordinateShared = kMostHadamard;

// The vectors of the basis that a side is on: f16 [format.width, head_dim].
struct BasisVectors {
  const uint16_t* numbers;
  int32_t head_dim;
  KVA_LANE_CODE float number(int32_t vector, int32_t channel) const {
    return f16_value(numbers[int64_t{vector} * head_dim + channel]);
  }
};

// Turns `rows` rows in place, `stride` numbers apart.
template <class Warp>
KVA_LANE_CODE void turn_rows(Warp& warp, float* first, int32_t rows, int32_t stride, int32_t width,
                             float* shared) {
  warp.sync();
  for (int32_t r = 0; r < rows; ++r) {
    hadamard_row(warp, first + int64_t{r} * stride, width, shared);
    warp.sync();
  }
}

// Rows [first_row, first_row + kItemRows) of a projection, as many as it has. shared: kCoordinateShared
// floats, this warp's own.
template <class Warp>
KVA_LANE_CODE void project_rows(Warp& warp, const AttentionJob& job, const AttentionProjection& of,
                                int32_t first_row, float* shared) {
  const DevicePage& page = job.pages[of.page];
  const SideFormat& format = job.formats[page.key_format];
  const int32_t dim = job.head_dim;
  const int32_t stride = coordinate_stride(format.width);
  const int32_t rows = of.rows - first_row < kItemRows ? of.rows - first_row : kItemRows;
  const AttentionItem item{
      .kv_head = of.kv_head, .batch_row = of.batch_row, .first_row = first_row, .rows = rows};
  float* to = job.coordinate_queries + int64_t{of.at} * kUnit + int64_t{first_row} * stride;
  for (int r = 0; r < kItemRows; ++r) {
    const float* from = item_query(job, item, r < rows ? r : 0);
    for (int32_t c = warp.lane(); c < dim; c += 32) {
      if (format.on_basis)
        shared[r * dim + c] = from[c];
      else if (r < rows)
        to[r * stride + c] = from[c];
    }
  }
  warp.sync();
  if (format.on_basis) {
    const BasisVectors basis{reinterpret_cast<const uint16_t*>(page.key_base), dim};
    for (int32_t i = 0; i < format.width; ++i) {
      float sums[kItemRows] = {};
      for (int32_t c = warp.lane(); c < dim; c += 32) {
        const float number = basis.number(i, c);
        for (int r = 0; r < kItemRows; ++r) sums[r] = fmaf(shared[r * dim + c], number, sums[r]);
      }
      int which;
      const float sum = sum_four(warp, sums, 32, &which);
      if (warp.lane() % 8 == 0 && which < rows) to[which * stride + i] = sum;
    }
  }
  if (format.hadamard) turn_rows(warp, to, rows, stride, format.width, shared);
}

// The same of sums: they become the values of states.
template <class Warp>
KVA_LANE_CODE void lift_rows(Warp& warp, const AttentionJob& job, const AttentionLift& of, int32_t first_row,
                             float* shared) {
  const DevicePage& page = job.pages[of.page];
  const SideFormat& format = job.formats[page.value_format];
  const int32_t dim = job.head_dim;
  const int32_t stride = coordinate_stride(format.width);
  const int32_t rows = of.rows - first_row < kItemRows ? of.rows - first_row : kItemRows;
  float* from = job.coordinate_sums + int64_t{of.at} * kUnit + int64_t{first_row} * stride;
  float* to = job.state_values + (int64_t{of.state} + first_row) * dim;
  if (format.hadamard) turn_rows(warp, from, rows, stride, format.width, shared);
  const BasisVectors basis{reinterpret_cast<const uint16_t*>(page.value_base), dim};
  for (int32_t c = warp.lane(); c < dim; c += 32) {
    float sums[kItemRows] = {};
    for (int r = 0; r < rows && !format.on_basis; ++r) sums[r] = from[r * stride + c];
    for (int32_t i = 0; i < format.width && format.on_basis; ++i) {
      const float number = basis.number(i, c);
      for (int r = 0; r < rows; ++r) sums[r] = fmaf(from[r * stride + i], number, sums[r]);
    }
    for (int r = 0; r < rows; ++r) to[int64_t{r} * dim + c] = sums[r];
  }
}

}  // namespace kva
