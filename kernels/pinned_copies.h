// Copies between the host's memory and the CUDA device's through pinned buffers, so that neither side waits
// for the driver to page memory in. Compiled without CUDA; only in builds with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kernels/device_ops.h"

namespace kva {

// Used by one thread at a time. All in order on one stream, which must outlive it. Throws std::runtime_error
// where CUDA fails.
class PinnedCopies {
 public:
  // stream: a cudaStream_t.
  explicit PinnedCopies(void* stream);
  ~PinnedCopies();
  PinnedCopies(const PinnedCopies&) = delete;
  PinnedCopies& operator=(const PinnedCopies&) = delete;

  // Returns when `source` may change: waits only where more is on its way than the buffers hold.
  void to_device(void* target, const void* source, int64_t bytes);
  // Returns when the bytes are there.
  void to_host(std::span<const DevicePiece> pieces);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kva
