// Errors of the CUDA libraries as exceptions. Included by .cu files only.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace kva {

inline void cuda_check(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

inline void cublas_check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error(std::string("cuBLAS: ") + what + ": " + cublasGetStatusString(status));
}

// The kernel may have so many bytes of dynamic shared memory.
template <class Kernel>
void allow_shared(Kernel kernel, int64_t bytes) {
  constexpr int64_t kPlainShared = 48 << 10;  // what it gets without being allowed more
  if (bytes > kPlainShared)
    cuda_check(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
        "allowing shared memory");
}

}  // namespace kva
