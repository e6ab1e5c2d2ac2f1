// Attention over pages on the device. Compiled without CUDA; only in builds with it.
#pragma once

#include <cstdint>

#include "kernels/attention_job.h"
#include "kernels/attention_work.h"

namespace kva {

// Runs the items of the grid's plan and merges their states into out [batch rows, kv_heads * group *
// head_dim], in order on one stream (a cudaStream_t; null: the default one). All addresses in `job` are the
// device's, its items, page_list and merges the plan's. Waits for nothing. Throws std::runtime_error where
// CUDA fails.
void attend_cuda(const AttentionGrid& grid, const AttentionJob& job, const AttentionMerge* merges, float* out,
                 int64_t out_stride, void* stream);

}  // namespace kva
