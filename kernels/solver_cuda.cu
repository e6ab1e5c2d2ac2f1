#include <cublas_v2.h>
#include <cusolverDn.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "kernels/cuda_check.cuh"
#include "kernels/device_buffer.h"
#include "kernels/solver_cuda.h"

namespace kva {
namespace {

constexpr auto kVectors = CUSOLVER_EIG_MODE_VECTOR;
constexpr auto kTriangle = CUBLAS_FILL_MODE_UPPER;
constexpr int64_t kLargestTogether = 512;  // a side of matrices whose eigenvectors are found at the same time
constexpr std::size_t kProductWorkspace = std::size_t{32} << 20;  // what cuBLAS recommends on sm_90

void cusolver_check(cusolverStatus_t status, const char* what) {
  if (status != CUSOLVER_STATUS_SUCCESS)
    throw std::runtime_error(std::string("cuSOLVER: ") + what + ": status " +
                             std::to_string(static_cast<int>(status)));
}

// A library's handle with its destructor.
template <typename T, typename Status, Status (*destroy)(T)>
class Handle {
 public:
  Handle() = default;
  ~Handle() {
    if (handle_) (void)destroy(handle_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  T* address() { return &handle_; }
  T get() const { return handle_; }

 private:
  T handle_ = nullptr;
};

// Memory of one call.
class Room {
 public:
  Room(const DeviceSolver::Memory& memory, int64_t bytes, const char* doing) : memory_(memory) {
    data_ = memory_.take(std::max<int64_t>(bytes, 1));
    if (!data_) cuda_check(cudaErrorMemoryAllocation, doing);
  }
  ~Room() { memory_.give_back(data_); }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  const DeviceSolver::Memory& memory_;
  void* data_ = nullptr;
};

int library_int(int64_t value) {
  KVA_CHECK(value >= 0 && value <= INT32_MAX, "matrices of sides that cuSOLVER can count");
  return static_cast<int>(value);
}

}  // namespace

struct DeviceSolver::Impl {
  Impl(void* on, Memory of) : stream(static_cast<cudaStream_t>(on)), memory(std::move(of)) {
    cublas_check(cublasCreate(blas.address()), "starting");
    cublas_check(cublasSetStream(blas.get(), stream), "choosing a stream");
    cublas_check(cublasSetWorkspace(blas.get(), workspace.as<void>(), workspace.bytes()),
                 "giving a workspace");
    cusolver_check(cusolverDnCreate(solver.address()), "starting");
    cusolver_check(cusolverDnSetStream(solver.get(), stream), "choosing a stream");
    cusolver_check(cusolverDnCreateParams(parameters.address()), "describing a problem");
  }

  // What the library says of `count` problems. Waits for them.
  void check_infos(const int* infos, int64_t count, const char* doing) {
    std::vector<int> found(static_cast<std::size_t>(count));
    cuda_check(
        cudaMemcpyAsync(found.data(), infos, found.size() * sizeof(int), cudaMemcpyDeviceToHost, stream),
        doing);
    cuda_check(cudaStreamSynchronize(stream), doing);
    const auto failed = std::find_if(found.begin(), found.end(), [](int info) { return info != 0; });
    if (failed != found.end())
      throw std::runtime_error(std::string("cuSOLVER: ") + doing + ": info " + std::to_string(*failed));
  }

  // QR by Householder's reflections. The library counts columns first: our rows are its columns.
  void orthonormalize(const OrthonormalJob& job) {
    const int length = library_int(job.length);
    const int count = library_int(job.rows);
    int to_factor = 0;
    int to_form = 0;
    cusolver_check(cusolverDnDgeqrf_bufferSize(solver.get(), length, count, job.matrices, length, &to_factor),
                   "asking for a QR decomposition's workspace");
    cusolver_check(cusolverDnDorgqr_bufferSize(solver.get(), length, count, count, job.matrices, length,
                                               job.matrices, &to_form),
                   "asking for a QR decomposition's workspace");
    const int work = std::max(to_factor, to_form);
    const int64_t numbers = int64_t{work} + count;
    const Room room(memory, numbers * 8 + job.count * 2 * int64_t{sizeof(int)}, "a QR decomposition");
    auto* factors = room.as<double>();
    double* scratch = factors + count;
    int* infos = reinterpret_cast<int*>(factors + numbers);
    for (int64_t i = 0; i < job.count; ++i) {
      double* matrix = job.matrices + i * job.rows * job.length;
      cusolver_check(cusolverDnDgeqrf(solver.get(), length, count, matrix, length, factors, scratch, work,
                                      infos + 2 * i),
                     "a QR decomposition");
      cusolver_check(cusolverDnDorgqr(solver.get(), length, count, count, matrix, length, factors, scratch,
                                      work, infos + 2 * i + 1),
                     "the Q of a QR decomposition");
    }
    check_infos(infos, 2 * job.count, "a QR decomposition");
  }

  // The library counts columns first: its upper triangle is our lower one, and its vectors are our rows.
  // Small matrices are worked on at the same time, which one alone would leave the device idle for.
  void find_eigenvectors(const EigenJob& job) {
    const int64_t together = job.size <= kLargestTogether ? job.count : 1;
    std::size_t here = 0;
    std::size_t on_host = 0;
    ask_eigen_workspace(job, together, &here, &on_host);
    const auto infos_at = static_cast<int64_t>((here + 7) / 8 * 8);
    const Room room(memory, infos_at + job.count * int64_t{sizeof(int)}, "eigenvectors");
    auto* infos = reinterpret_cast<int*>(room.as<std::byte>() + infos_at);
    std::vector<std::byte> host(on_host);
    for (int64_t i = 0; i < job.count; i += together) {
      double* matrices = job.matrices + i * job.size * job.size;
      double* values = job.values + i * job.size;
      const cusolverStatus_t status =
          together > 1
              ? cusolverDnXsyevBatched(solver.get(), parameters.get(), kVectors, kTriangle, job.size,
                                       CUDA_R_64F, matrices, job.size, CUDA_R_64F, values, CUDA_R_64F,
                                       room.as<void>(), here, host.data(), on_host, infos, together)
              : cusolverDnXsyevd(solver.get(), parameters.get(), kVectors, kTriangle, job.size, CUDA_R_64F,
                                 matrices, job.size, CUDA_R_64F, values, CUDA_R_64F, room.as<void>(), here,
                                 host.data(), on_host, infos + i);
      cusolver_check(status, "eigenvectors");
    }
    check_infos(infos, job.count, "eigenvectors");
  }

  void ask_eigen_workspace(const EigenJob& job, int64_t together, std::size_t* here, std::size_t* on_host) {
    const cusolverStatus_t status =
        together > 1
            ? cusolverDnXsyevBatched_bufferSize(solver.get(), parameters.get(), kVectors, kTriangle, job.size,
                                                CUDA_R_64F, job.matrices, job.size, CUDA_R_64F, job.values,
                                                CUDA_R_64F, here, on_host, together)
            : cusolverDnXsyevd_bufferSize(solver.get(), parameters.get(), kVectors, kTriangle, job.size,
                                          CUDA_R_64F, job.matrices, job.size, CUDA_R_64F, job.values,
                                          CUDA_R_64F, here, on_host);
    cusolver_check(status, "asking for eigenvectors' workspace");
  }

  cudaStream_t stream;
  Memory memory;
  DeviceBuffer workspace{kProductWorkspace};
  Handle<cublasHandle_t, cublasStatus_t, cublasDestroy> blas;
  Handle<cusolverDnHandle_t, cusolverStatus_t, cusolverDnDestroy> solver;
  Handle<cusolverDnParams_t, cusolverStatus_t, cusolverDnDestroyParams> parameters;
};

DeviceSolver::DeviceSolver(void* stream, Memory memory)
    : impl_(std::make_unique<Impl>(stream, std::move(memory))) {}
DeviceSolver::~DeviceSolver() = default;

int64_t DeviceSolver::workspace_bytes() const { return static_cast<int64_t>(kProductWorkspace); }

// cuBLAS counts columns first: outᵀ = Bᵀ Aᵀ.
void DeviceSolver::run(const MatrixProduct& product) {
  if (product.rows * product.cols * product.count == 0) return;
  const double none = 0.0;
  const int64_t a_stride = product.a_stride > 0 ? product.a_stride : product.rows * product.inner;
  cublas_check(
      cublasDgemmStridedBatched_64(
          impl_->blas.get(), product.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
          product.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, product.cols, product.rows, product.inner,
          &product.factor, product.b, product.transpose_b ? product.inner : product.cols,
          product.inner * product.cols, product.a, product.transpose_a ? product.rows : product.inner,
          a_stride, &none, product.out, product.cols, product.rows * product.cols, product.count),
      "multiplying matrices");
}

void DeviceSolver::run(const OrthonormalJob& job) {
  if (job.count > 0) impl_->orthonormalize(job);
}

void DeviceSolver::run(const EigenJob& job) {
  if (job.count > 0) impl_->find_eigenvectors(job);
}

}  // namespace kva
