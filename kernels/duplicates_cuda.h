// The CUDA kernels of kernels/duplicates_lanes.h. Compiled without CUDA; only in builds with it.
#pragma once

#include "kernels/duplicates_lanes.h"

namespace kva {

// What a sort of so many hashes needs.
int64_t duplicates_workspace_bytes(int32_t count);

// In order on `stream` (a cudaStream_t; null: the default one); waits for nothing. The workspace has
// duplicates_workspace_bytes(job.count). Throws std::runtime_error where CUDA fails.
void count_duplicates_cuda(const DuplicateJob& job, void* workspace, int64_t workspace_bytes, void* stream);

}  // namespace kva
