// Products with a model's weights on the device, by cuBLASLt: in the weights' type, with f32 accumulation
// (f32 weights, and those with scales: plain f32, no TF32). Compiled without CUDA; only in builds with it.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/device_product.h"

namespace kva {

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
