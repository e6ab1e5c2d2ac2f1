// Compiled without fused multiply-adds, which would round otherwise than the CPU's codec does.
#include "kernels/cuda_check.cuh"
#include "kernels/device_block.cuh"
#include "kernels/device_warp.cuh"
#include "kernels/pack_cuda.h"
#include "kernels/pack_lanes.h"

namespace kva {
namespace {

constexpr int kThreads = 256;

struct Block : DeviceBlock {
  template <class Body>
  __device__ void each(int32_t count, const Body& body) const {
    for (auto i = static_cast<int32_t>(threadIdx.x); i < count; i += kThreads) body(i);
    __syncthreads();
  }
  template <class Body>
  __device__ void warp(const Body& body) const {
    if (threadIdx.x < 32) {
      DeviceWarp lanes;
      body(lanes);
    }
    __syncthreads();
  }
  __device__ std::byte* shared() const {
    extern __shared__ FourWords memory[];
    return reinterpret_cast<std::byte*>(memory);
  }
};

// Block `side`.
template <PackPath path, bool makes>
__global__ void __launch_bounds__(kThreads) pack_kernel(PackJob job) {
  Block block;
  pack_side_by<path, makes>(block, job, static_cast<int32_t>(blockIdx.x));
}

template <SideKind kind, SideKind source, bool has_outliers, bool of_tokens>
__global__ void __launch_bounds__(kThreads) pack_bare_kernel(PackJob job) {
  Block block;
  BarePacking<kind, source, has_outliers, of_tokens, Block>(block, job, static_cast<int32_t>(blockIdx.x))
      .run();
}

struct PackLaunch {
  const PackJob& job;
  cudaStream_t stream;

  template <PackPath path, bool makes>
  void run() const {
    pack_kernel<path, makes><<<static_cast<unsigned int>(job.count), kThreads, 0, stream>>>(job);
  }
  template <SideKind kind, SideKind source, bool has_outliers, bool of_tokens>
  void run_bare() const {
    const int64_t shared_bytes = bare_shared(job).bytes;
    allow_shared(pack_bare_kernel<kind, source, has_outliers, of_tokens>, shared_bytes);
    pack_bare_kernel<kind, source, has_outliers, of_tokens>
        <<<static_cast<unsigned int>(job.count), kThreads, static_cast<std::size_t>(shared_bytes), stream>>>(
            job);
  }
};

}  // namespace

void pack_cuda(const PackJob& job, void* stream) {
  if (job.count <= 0) return;
  const PackLaunch launch{job, static_cast<cudaStream_t>(stream)};
  with_pack_path(job, launch);
  cuda_check(cudaGetLastError(), "launching an encoding");
}

}  // namespace kva
