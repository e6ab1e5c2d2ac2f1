#include "kernels/tile_launch.cuh"

namespace kva {

TileKernel f16_tile_kernel(int32_t head_dim) { return tile_kernel_for<TileKind::kF16>(head_dim); }

}  // namespace kva
