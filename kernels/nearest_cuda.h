// The CUDA kernel of kernels/nearest_lanes.h. Compiled without CUDA; only in builds with it.
#pragma once

#include "kernels/nearest_lanes.h"

namespace kva {

// In order on `stream` (a cudaStream_t; null: the default one); waits for nothing. Throws std::runtime_error
// where CUDA fails.
void nearest_cuda(const NearestJob& job, void* stream);

}  // namespace kva
