// The decoder's steps between its products, on the device. Compiled without CUDA; only in builds with it.
// Everything runs in order on `stream` (a cudaStream_t; null: the default one) and waits for nothing. Throws
// std::runtime_error where CUDA fails. Shapes and addresses are the caller's to get right.
#pragma once

#include <cstdint>

#include "kernels/decoder_lanes.h"
#include "kernels/sampling_lanes.h"

namespace kva {

void norm_cuda(const NormJob& job, void* stream);
void activate_cuda(const ActivationJob& job, void* stream);
void add_cuda(const SumJob& job, void* stream);
void gather_cuda(const GatherJob& job, void* stream);
void cast_cuda(const CastJob& job, void* stream);
void widen_cuda(const WidenJob& job, void* stream);
void rope_cuda(const RopeJob& job, void* stream);

// Bytes of device memory that choose_cuda() needs for a vocabulary; more where it sorts (top-k or top-p).
int64_t choose_workspace_bytes(int32_t vocabulary, bool sorts);

// *token = the next token by the job, the most likely one at temperature 0; -1 - i where the logit of token i
// is NaN or +inf. Logits, token and workspace are the device's; job.order is chosen here.
void choose_cuda(const SampleJob& job, void* workspace, int64_t workspace_bytes, int32_t* token,
                 void* stream);

}  // namespace kva
