// Writing pages on the device (kernels/encode_lanes.h). Compiled without CUDA; only in builds with it.
// Everything runs in order on `stream` (a cudaStream_t; null: the default one) and waits for nothing. Throws
// std::runtime_error where CUDA fails. All addresses are the device's.
#pragma once

#include <cstdint>

#include "kernels/encode_lanes.h"

namespace kva {

void append_cuda(const AppendJob& job, void* stream);

void place_cuda(const PlaceJob& job, void* stream);

// Codes `count` page sides of one format: side i from rows + i * rows_stride numbers into payloads[i].
void pack_cuda(const SideFormat& format, const float* rows, int64_t rows_stride, std::byte* const* payloads,
               int32_t count, void* stream);

// rows: [count, cols], cols a power of two up to 1024, in place.
void hadamard_cuda(float* rows, int64_t count, int32_t cols, void* stream);

}  // namespace kva
