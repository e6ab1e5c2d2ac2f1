// Rows of pages as coefficients or as matrices on the device (kernels/projection_lanes.h,
// kernels/solver_lanes.h), and small QR decompositions (kernels/orthonormal_lanes.h). Compiled without CUDA;
// only in builds with it. Everything runs in order on `stream` (a cudaStream_t; null: the default one) and
// waits for nothing. Throws std::runtime_error where CUDA fails. All addresses are the device's.
#pragma once

#include "kernels/projection_lanes.h"
#include "kernels/solver_lanes.h"

namespace kva {

void project_cuda(const ProjectionJob& job, void* stream);
void widen_rows_cuda(const WidenRowsJob& job, void* stream);
void draw_normals_cuda(const NormalJob& job, void* stream);
// takes_blocks(job).
void orthonormalize_cuda(const OrthonormalJob& job, void* stream);

}  // namespace kva
