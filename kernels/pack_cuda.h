// Coding page sides on the device (kernels/pack_lanes.h). Compiled without CUDA; only in builds with it.
// Everything runs in order on `stream` (a cudaStream_t; null: the default one) and waits for nothing. Throws
// std::runtime_error where CUDA fails. All addresses are the device's.
#pragma once

#include "kernels/pack_job.h"

namespace kva {

void pack_cuda(const PackJob& job, void* stream);

}  // namespace kva
