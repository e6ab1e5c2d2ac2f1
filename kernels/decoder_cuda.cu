#include "kernels/cuda_check.cuh"
#include "kernels/decoder_cuda.h"
#include "kernels/device_warp.cuh"

namespace kva {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 1 << 16;  // of an element-wise launch: more elements take more turns

__global__ void norm_kernel(NormJob job) {
  const int64_t row = int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32;
  if (row >= job.x.rows) return;
  DeviceWarp warp;
  norm_row(warp, job, row);
}

struct ActivateOne {
  ActivationJob job;
  __device__ void operator()(int64_t row, int64_t col) const { activate_one(job, row, col); }
};
struct AddOne {
  SumJob job;
  __device__ void operator()(int64_t row, int64_t col) const { add_one(job, row, col); }
};
struct GatherOne {
  GatherJob job;
  __device__ void operator()(int64_t row, int64_t col) const { gather_one(job, row, col); }
};
struct CastOne {
  CastJob job;
  __device__ void operator()(int64_t row, int64_t col) const { cast_one(job, row, col); }
};
struct WidenOne {
  WidenJob job;
  __device__ void operator()(int64_t row, int64_t col) const { widen_one(job, row, col); }
};
struct RotateOne {
  RopeJob job;
  __device__ void operator()(int64_t row, int64_t pair) const { rotate_one(job, row, pair); }
};

template <class Body>
__global__ void each_kernel(int64_t rows, int64_t cols, Body body) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < rows * cols; i += step) {
    const int64_t row = i / cols;
    body(row, i - row * cols);
  }
}

template <class Body>
void launch_each(int64_t rows, int64_t cols, const Body& body, void* stream, const char* what) {
  if (rows <= 0 || cols <= 0) return;
  const int64_t blocks = (rows * cols + kThreads - 1) / kThreads;
  each_kernel<<<static_cast<unsigned int>(blocks < kMostBlocks ? blocks : kMostBlocks), kThreads, 0,
                static_cast<cudaStream_t>(stream)>>>(rows, cols, body);
  cuda_check(cudaGetLastError(), what);
}

}  // namespace

void norm_cuda(const NormJob& job, void* stream) {
  if (job.x.rows <= 0) return;
  constexpr int64_t kRows = kThreads / 32;
  norm_kernel<<<static_cast<unsigned int>((job.x.rows + kRows - 1) / kRows), kThreads, 0,
                static_cast<cudaStream_t>(stream)>>>(job);
  cuda_check(cudaGetLastError(), "launching a norm");
}

void activate_cuda(const ActivationJob& job, void* stream) {
  launch_each(job.x.rows, job.x.cols, ActivateOne{job}, stream, "launching an activation");
}

void add_cuda(const SumJob& job, void* stream) {
  launch_each(job.x.rows, job.x.cols, AddOne{job}, stream, "launching a sum");
}

void gather_cuda(const GatherJob& job, void* stream) {
  launch_each(job.out.rows, job.out.cols, GatherOne{job}, stream, "launching a gather");
}

void cast_cuda(const CastJob& job, void* stream) {
  launch_each(job.x.rows, job.x.cols, CastOne{job}, stream, "launching a cast");
}

void widen_cuda(const WidenJob& job, void* stream) {
  launch_each(job.weights.rows, job.weights.cols, WidenOne{job}, stream, "widening weights");
}

void rope_cuda(const RopeJob& job, void* stream) {
  const int64_t pairs = job.x.cols / job.head_dim * (job.rotary_dim / 2);
  launch_each(job.x.rows, pairs, RotateOne{job}, stream, "launching a rotation");
}

}  // namespace kva
