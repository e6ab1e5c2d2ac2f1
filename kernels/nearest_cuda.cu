#include "kernels/check.h"
#include "kernels/cuda_check.cuh"
#include "kernels/device_warp.cuh"
#include "kernels/nearest_cuda.h"

namespace kva {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kRows = kThreads / 32;  // a warp each

__global__ void nearest_kernel(NearestJob job) {
  const int64_t row = int64_t{blockIdx.x} * kRows + threadIdx.x / 32;
  if (row >= job.points) return;
  DeviceWarp warp;
  nearest_row(warp, job, row);
}

}  // namespace

void nearest_cuda(const NearestJob& job, void* stream) {
  KVA_CHECK(job.centroids >= 1 && job.centroids <= kMostVocabulary, "from 1 to 2^24 centroids");
  if (job.points <= 0) return;
  nearest_kernel<<<static_cast<unsigned int>((job.points + kRows - 1) / kRows), kThreads, 0,
                   static_cast<cudaStream_t>(stream)>>>(job);
  cuda_check(cudaGetLastError(), "launching the search for the nearest centroids");
}

}  // namespace kva
