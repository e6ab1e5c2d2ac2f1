// The CUDA kernels of kernels/cover_lanes.h. Compiled without CUDA; only in builds with it.
#pragma once

#include "kernels/cover_job.h"

namespace kva {

// In order on `stream` (a cudaStream_t; null: the default one); waits for nothing. Throws std::runtime_error
// where CUDA fails.
void cover_cuda(const CoverJob& job, void* stream);

}  // namespace kva
