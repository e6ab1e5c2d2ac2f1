// Writing pages on the device (kernels/encode_lanes.h). Compiled without CUDA; only in builds with it.
// Everything runs in order on `stream` (a cudaStream_t; null: the default one) and waits for nothing. Throws
// std::runtime_error where CUDA fails. All addresses are the device's.
#pragma once

#include <cstdint>

#include "kernels/encode_lanes.h"

namespace kva {

void append_cuda(const AppendJob& job, void* stream);

void place_cuda(const PlaceJob& job, void* stream);

}  // namespace kva
