// Numbers that the host works out and a device reads.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "runtime/backend/backend.h"

namespace kva {

// The backend, and the text of `purpose`, outlive it.
template <typename T>
class DeviceArray {
 public:
  DeviceArray(Backend& backend, std::string_view purpose) : backend_(backend), purpose_(purpose) {}

  // Memory for so many. What it held is lost where it grows, by an eighth more than asked: growing waits for
  // some devices. Throws InputError when out of memory.
  void reserve(int64_t count) {
    const int64_t bytes = count * int64_t{sizeof(T)};
    if (bytes <= buffer_.bytes()) return;
    buffer_ = Buffer();  // first, so that both need not fit
    buffer_ = Buffer(backend_, bytes + bytes / 8, purpose_);
  }
  void upload(std::span<const T> values) {
    if (values.empty()) return;
    reserve(std::ssize(values));
    backend_.upload(buffer_.data(), values.data(), static_cast<int64_t>(values.size_bytes()));
  }

  T* data() const { return reinterpret_cast<T*>(buffer_.data()); }
  int64_t held_bytes() const { return buffer_.held_bytes(); }

 private:
  Backend& backend_;
  std::string_view purpose_;
  Buffer buffer_;
};

}  // namespace kva
