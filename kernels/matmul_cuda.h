// Products with a model's weights on the device, by cuBLASLt: in the weights' type, with f32 accumulation
// (f32 weights: plain f32, no TF32). Compiled without CUDA; only in builds with it.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/decoder_lanes.h"
#include "kernels/matmul.h"

namespace kva {

// One product out [x.rows, weights.rows] = x · weightsᵀ + bias; where `adds`, out keeps what it held and that
// is added. x has the weights' type; out is f32; both have cols = stride. bias: [weights.rows] f32 or null.
// All on the device, 16-byte aligned.
struct DeviceProduct {
  DeviceRows x;
  WeightView weights;
  const float* bias = nullptr;
  DeviceRows out;
  bool adds = false;
};

// Owns the library's handle, a workspace of fixed size and the algorithm chosen for each shape. Used by one
// thread at a time.
class DeviceMatmul {
 public:
  // Throws std::runtime_error where CUDA fails.
  DeviceMatmul();
  ~DeviceMatmul();
  DeviceMatmul(const DeviceMatmul&) = delete;
  DeviceMatmul& operator=(const DeviceMatmul&) = delete;

  // In order on `stream`; waits for nothing. The same shape takes the same algorithm. Throws
  // std::runtime_error.
  void run(const DeviceProduct& product, void* stream);

  int64_t workspace_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kva
