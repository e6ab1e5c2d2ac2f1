#include "runtime/backend/backend.h"

#include <fmt/format.h>

#include <cstring>
#include <limits>
#include <utility>

#include "kernels/check.h"
#include "runtime/error.h"

namespace kva {

Backend::~Backend() { KVA_CHECK(allocated_bytes() == 0, "memory outlives its backend"); }

int64_t Backend::held_bytes(int64_t bytes) const { return (bytes + granule_ - 1) / granule_ * granule_; }

void* Backend::allocate(int64_t bytes, std::string_view purpose, MemoryUse use) {
  KVA_CHECK(bytes >= 0, "negative allocation");
  if (bytes == 0) return nullptr;
  const bool addressable = bytes <= std::numeric_limits<int64_t>::max() - granule_;
  const int64_t held = addressable ? held_bytes(bytes) : bytes;
  void* memory = addressable ? raw_allocate(held, use) : nullptr;
  if (!memory)
    throw InputError(fmt::format(
        "{}: out of memory: {} bytes asked for {}, {} bytes held already; use a shorter context, a "
        "smaller batch or a smaller type (kvanalyze max-context finds what fits)",
        name(), bytes, purpose, allocated_bytes()));
  const int64_t now = allocated_.fetch_add(held, std::memory_order_relaxed) + held;
  int64_t peak = peak_bytes();
  while (now > peak && !peak_.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
  }
  return memory;
}

void Backend::free(void* memory, int64_t bytes) noexcept {
  if (!memory) return;
  const int64_t held = held_bytes(bytes);
  raw_free(memory, held);
  allocated_.fetch_sub(held, std::memory_order_relaxed);
}

void Backend::upload(void* target, const void* source, int64_t bytes) {
  if (bytes > 0) std::memcpy(target, source, static_cast<std::size_t>(bytes));
}

void Backend::download(void* target, const void* source, int64_t bytes) {
  if (bytes > 0) std::memcpy(target, source, static_cast<std::size_t>(bytes));
}

Buffer::Buffer(Backend& backend, int64_t bytes, std::string_view purpose, MemoryUse use)
    : backend_(&backend),
      data_(static_cast<std::byte*>(backend.allocate(bytes, purpose, use))),
      bytes_(bytes) {}

Buffer::~Buffer() {
  if (backend_) backend_->free(data_, bytes_);
}

Buffer::Buffer(Buffer&& other) noexcept
    : backend_(std::exchange(other.backend_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(backend_, other.backend_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace kva
