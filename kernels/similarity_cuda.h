// The CUDA kernels of kernels/similarity_lanes.h. Compiled without CUDA; only in builds with it. Everything
// runs in order on `stream` (a cudaStream_t; null: the default one) and waits for nothing. Throws
// std::runtime_error where CUDA fails.
#pragma once

#include "kernels/similarity_job.h"

namespace kva {

void count_bits_cuda(const BitCountJob& job, void* stream);
void compare_pairs_cuda(const PairJob& job, void* stream);

}  // namespace kva
