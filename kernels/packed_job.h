// A packed page as packed_cpu.cc's vector kernels read it: a matrix of packed rows, which are tokens or
// channels.
#pragma once

#include <cstdint>
#include <utility>

#include "kernels/packed.h"

namespace kva {

struct PackedJob {
  PackedJob(const PackedPage& page, float* scratch);
  PackedJob(const PackedJob&) = delete;  // copying one costs as much as a short page
  PackedJob& operator=(const PackedJob&) = delete;

  float* take(int64_t values) { return std::exchange(scratch, scratch + values); }
  const uint8_t* row(int64_t r) const {
    return r < split ? front + r * row_bytes : back + (r - split) * row_bytes;
  }

  const PackedPage& page;
  int64_t rows;
  int64_t cols;
  PackedShape shape;  // of a row
  bool scale_by_row;  // groups are of neighbours in a row; else of neighbours in a column
  int64_t group;
  int64_t groups;
  float* scratch;  // what is left of it
  // As f32: [group of columns, row], or [group of rows, column].
  float* scales;
  float* zeros;
  // Loads of whole vectors may read some bytes past a row's last block: the last rows, past which there may
  // be no memory, are read from a copy with room behind it.
  int64_t row_bytes;
  int64_t split;
  const uint8_t* front;
  const uint8_t* back;  // row `split`
  // Rows have so many lanes that vectors of 16 pay.
  bool wide;
};

}  // namespace kva
