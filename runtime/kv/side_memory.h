// Memory of what pages share: bases, codebooks. It comes from the cache's backend and counts as `side` in its
// ledger for as long as it lives, whoever holds it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "runtime/backend/backend.h"

namespace kva {

class SideMemory {
 public:
  explicit SideMemory(std::shared_ptr<Backend> backend) : backend_(std::move(backend)) {}

  Backend& backend() const { return *backend_; }
  int64_t held_bytes() const { return held_bytes_; }

 private:
  friend class SideArray;
  std::shared_ptr<Backend> backend_;
  int64_t held_bytes_ = 0;
};

// A fixed array of bytes in a SideMemory; move-only. Made and destroyed by one thread at a time.
class SideArray {
 public:
  SideArray() = default;
  SideArray(std::shared_ptr<SideMemory> memory, int64_t bytes, std::string_view purpose);
  ~SideArray();
  SideArray(SideArray&& other) noexcept = default;
  SideArray& operator=(SideArray&& other) = delete;

  std::byte* data() const { return buffer_.data(); }
  int64_t bytes() const { return buffer_.bytes(); }

 private:
  std::shared_ptr<SideMemory> memory_;
  Buffer buffer_;
};

inline std::span<const std::byte> bytes_of(const SideArray& array) {
  return {array.data(), static_cast<std::size_t>(array.bytes())};
}

// The numbers rounded to f16.
SideArray make_f16_array(std::shared_ptr<SideMemory> memory, std::span<const float> numbers,
                         std::string_view purpose);

}  // namespace kva
