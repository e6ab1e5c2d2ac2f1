#include "kernels/tile_launch.cuh"

namespace kva {

TileKernel decoded_tile_kernel(int32_t head_dim) { return tile_kernel_for<TileKind::kDecoded>(head_dim); }

}  // namespace kva
