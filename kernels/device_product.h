// A product of activations with stored weights on a device.
#pragma once

#include "kernels/check.h"
#include "kernels/decoder_lanes.h"
#include "kernels/weight_view.h"

namespace kva {

// out [x.rows, weights.rows] = x · weightsᵀ + bias; where `adds`, out keeps what it held and that is added. x
// has the weights' type; out is f32; both have cols = stride. bias: [weights.rows] f32 or null. All on the
// device, 16-byte aligned. Weights with scales are f32 ones to x.
struct DeviceProduct {
  DeviceRows x;
  WeightView weights;
  const float* bias = nullptr;
  DeviceRows out;
  bool adds = false;

  friend bool operator==(const DeviceProduct&, const DeviceProduct&) = default;
};

// Weights with scales are multiplied tile by tile, so that they never lie wide as a whole. Calls
// multiply(WidenJob, DeviceProduct) for neighbouring outputs: weights to be widened into `tile`, and the
// product with them there. tile: tile_rows * weights.cols numbers.
inline constexpr int64_t kWidenedRows = 64;  // a multiple of them is widened, so that outputs are aligned
template <class Multiply>
void multiply_in_tiles(const DeviceProduct& product, float* tile, int64_t tile_rows,
                       const Multiply& multiply) {
  KVA_CHECK(tile_rows > 0 && tile_rows % kWidenedRows == 0, "tiles of whole blocks of rows");
  const WeightView& weights = product.weights;
  for (int64_t first = 0; first < weights.rows; first += tile_rows) {
    const int64_t count = weights.rows - first < tile_rows ? weights.rows - first : tile_rows;
    DeviceProduct part = product;
    part.weights = {tile, DType::kF32, count, weights.cols};
    if (product.bias) part.bias = product.bias + first;
    part.out.data = static_cast<float*>(product.out.data) + first;
    part.out.cols = count;
    multiply(WidenJob{weights.row_range(first, count), tile}, part);
  }
}

}  // namespace kva
