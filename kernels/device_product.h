// A product of activations with stored weights on a device.
#pragma once

#include "kernels/decoder_lanes.h"
#include "kernels/weight_view.h"

namespace kva {

// out [x.rows, weights.rows] = x · weightsᵀ + bias; where `adds`, out keeps what it held and that is added. x
// has the weights' type; out is f32; both have cols = stride. bias: [weights.rows] f32 or null. All on the
// device, 16-byte aligned. The weights have no scales.
struct DeviceProduct {
  DeviceRows x;
  WeightView weights;
  const float* bias = nullptr;
  DeviceRows out;
  bool adds = false;

  friend bool operator==(const DeviceProduct&, const DeviceProduct&) = default;
};

}  // namespace kva
