// What packed_cpu.cc prepares of a packed page before its vector kernels run: where its rows are safe to read
// and its scales as f32, in the caller's scratch.
#pragma once

#include <cstdint>
#include <utility>

#include "kernels/packed.h"

namespace kva {

// Rows of a page. Loads of whole vectors may read some bytes past a row's last block: the page's last rows,
// past which there may be no memory, are read from a copy with room behind it.
struct PackedRows {
  const uint8_t* front = nullptr;
  const uint8_t* back = nullptr;  // row `split`
  int64_t split = 0;
  int64_t row_bytes = 0;

  const uint8_t* row(int64_t t) const {
    return t < split ? front + t * row_bytes : back + (t - split) * row_bytes;
  }
};

// Scale and zero of each slice of each token, for pages with several groups in a token: [tokens, stride].
// Scales are times the slice's unit (what its codes are too large by, being unshifted).
struct SliceScales {
  const float* scales = nullptr;
  const float* zeros = nullptr;
  int64_t stride = 0;
};

struct PackedJob {
  PackedPage page;
  PackedShape shape{8, 0};
  PackedRows rows;
  int64_t groups = 1;  // of a token, where scales are per token
  const float* scales = nullptr;
  const float* zeros = nullptr;
  float* scratch = nullptr;  // what is left of it
  // What a padded query has for each slice: a multiple of any vector that reads it.
  int64_t pad = PackedShape::kLanes;

  float* take(int64_t values) { return std::exchange(scratch, scratch + values); }
  int64_t slices() const { return shape.blocks() * shape.slices; }
};

}  // namespace kva
