// The kernels of attention in tiles. Included by .cu files only.
#pragma once

#include <cstdint>

#include "kernels/attend_kernel.cuh"
#include "kernels/attention_tiles.h"

namespace kva {

// One for a head dimension, and the bytes of shared memory of its blocks, of kTileThreads threads. Block b
// takes item first + count - 1 - b. Null where !is_tensor_width().
struct TileKernel {
  AttendKernel kernel = nullptr;
  int64_t shared_bytes = 0;
};
TileKernel f16_tile_kernel(int32_t head_dim);
TileKernel bf16_tile_kernel(int32_t head_dim);
TileKernel decoded_tile_kernel(int32_t head_dim);

}  // namespace kva
