// Tokens of coded page sides as rows of f32 on the device (kernels/unpack_lanes.h). Compiled without CUDA;
// only in builds with it. Runs in order on `stream` (a cudaStream_t; null: the default one) and waits for
// nothing. Throws std::runtime_error where CUDA fails. All addresses are the device's.
#pragma once

#include "kernels/unpack_lanes.h"

namespace kva {

void unpack_cuda(const UnpackJob& job, void* stream);

}  // namespace kva
