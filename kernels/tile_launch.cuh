// What the units of kernels/tile_kernel.cuh's kernels are made of. Included by .cu files only.
#pragma once

#include "kernels/tile_attention.h"
#include "kernels/tile_kernel.cuh"
#include "kernels/tile_team.cuh"

namespace kva {

template <int kWidth, TileKind kTiles>
__global__ void __launch_bounds__(kTileThreads, tile_blocks(kWidth, kTiles))
    tile_kernel(AttentionJob job, SideKind keys, SideKind values, int32_t first, int32_t count) {
  extern __shared__ __align__(16) unsigned char tile_memory[];
  DeviceTileTeam team;
  attend_tiles<kWidth, kTiles>(team, job, keys, values,
                               job.items[first + count - 1 - static_cast<int32_t>(blockIdx.x)],
                               *reinterpret_cast<TileMemory<kWidth>*>(tile_memory));
}

template <TileKind kTiles>
TileKernel tile_kernel_for(int32_t head_dim) {
  TileKernel found;
  with_tensor_width(head_dim, [&](auto width) {
    found = {tile_kernel<width(), kTiles>, int64_t{sizeof(TileMemory<width()>)}};
  });
  return found;
}

}  // namespace kva
