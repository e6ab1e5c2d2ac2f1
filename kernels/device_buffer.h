// Memory on the CUDA device, for callers that are compiled without CUDA. Only in builds with CUDA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace kva {

// CUDA devices of this machine; 0 where there is no driver. Asked once.
int cuda_device_count();

// Bytes on device 0, owned. Throws std::runtime_error where CUDA fails.
class DeviceBuffer {
 public:
  explicit DeviceBuffer(std::size_t bytes);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&&) = delete;

  template <typename T>
  static DeviceBuffer holding(std::span<const T> values) {
    DeviceBuffer buffer(values.size_bytes());
    buffer.upload(values.data(), values.size_bytes());
    return buffer;
  }

  // Blocking copies from and to the first bytes of the buffer.
  void upload(const void* source, std::size_t bytes);
  void download(void* target, std::size_t bytes) const;
  void fill_zero();

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace kva
