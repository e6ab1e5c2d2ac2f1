#include "kernels/check.h"
#include "kernels/cuda_check.cuh"
#include "kernels/device_buffer.h"

namespace kva {

int cuda_device_count() {
  static const int count = [] {
    int found = 0;
    if (cudaGetDeviceCount(&found) == cudaSuccess) return found;
    (void)cudaGetLastError();  // clears it: having no driver is no error here
    return 0;
  }();
  return count;
}

DeviceBuffer::DeviceBuffer(std::size_t bytes) : bytes_(bytes) {
  if (bytes > 0) cuda_check(cudaMalloc(&data_, bytes), "allocating device memory");
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) (void)cudaFree(data_);
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept : data_(other.data_), bytes_(other.bytes_) {
  other.data_ = nullptr;
  other.bytes_ = 0;
}

void DeviceBuffer::upload(const void* source, std::size_t bytes) {
  KVA_CHECK(bytes <= bytes_, "an upload within the buffer");
  if (bytes > 0)
    cuda_check(cudaMemcpy(data_, source, bytes, cudaMemcpyHostToDevice), "copying to the device");
}

void DeviceBuffer::download(void* target, std::size_t bytes) const {
  KVA_CHECK(bytes <= bytes_, "a download within the buffer");
  if (bytes > 0)
    cuda_check(cudaMemcpy(target, data_, bytes, cudaMemcpyDeviceToHost), "copying from the device");
}

void DeviceBuffer::fill_zero() {
  if (bytes_ > 0) cuda_check(cudaMemset(data_, 0, bytes_), "clearing device memory");
}

}  // namespace kva
