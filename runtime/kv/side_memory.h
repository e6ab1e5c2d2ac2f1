// Memory of what pages share: bases, codebooks. The host has it, since codecs read it there; of arrays that
// device kernels read there is a copy beside the pages. Both count as `side` in the cache's ledger for as
// long as they live, whoever holds them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "runtime/backend/backend.h"

namespace kva {

class SideMemory {
 public:
  // backend: the host's. device: where kernels read copies; null: they read none.
  explicit SideMemory(std::shared_ptr<Backend> backend, std::shared_ptr<Backend> device = nullptr)
      : backend_(std::move(backend)), device_(std::move(device)) {}

  Backend& backend() const { return *backend_; }
  int64_t held_bytes() const { return held_bytes_; }           // of the host's memory
  int64_t device_held_bytes() const { return device_bytes_; }  // of the device's

 private:
  friend class SideArray;
  std::shared_ptr<Backend> backend_;
  std::shared_ptr<Backend> device_;
  int64_t held_bytes_ = 0;
  int64_t device_bytes_ = 0;
};

// A fixed array of bytes in a SideMemory; move-only. Made, destroyed and brought to a device by one thread at
// a time.
class SideArray {
 public:
  SideArray() = default;
  SideArray(std::shared_ptr<SideMemory> memory, int64_t bytes, std::string_view purpose);
  ~SideArray();
  SideArray(SideArray&& other) noexcept = default;
  SideArray& operator=(SideArray&& other) = delete;

  std::byte* data() const { return buffer_.data(); }
  int64_t bytes() const { return buffer_.bytes(); }

  // The array where device kernels read it, for as long as it lives: the first call copies it there, so that
  // it must not change any more. Its memory has a device. Throws InputError, changing nothing, when that has
  // no memory left.
  const std::byte* on_device() const;

 private:
  std::shared_ptr<SideMemory> memory_;
  Buffer buffer_;
  mutable Buffer copy_;  // on the device
  std::string_view purpose_;
};

inline std::span<const std::byte> bytes_of(const SideArray& array) {
  return {array.data(), static_cast<std::size_t>(array.bytes())};
}

// The numbers rounded to f16.
SideArray make_f16_array(std::shared_ptr<SideMemory> memory, std::span<const float> numbers,
                         std::string_view purpose);

}  // namespace kva
