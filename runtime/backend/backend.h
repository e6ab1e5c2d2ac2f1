// A device's memory, counted. Everything a KV cache holds comes from one Backend, so that its ledger can be
// checked against what was really allocated.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace kva {

class DeviceOps;  // kernels/device_ops.h

// What memory is for: kPages stay where they are and are read from end to end at every step, which is worth
// placing them with care.
enum class MemoryUse { kAny, kPages };

// Thread-safe. Outlives everything allocated from it.
class Backend {
 public:
  virtual ~Backend();
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  virtual std::string name() const = 0;  // "cpu"
  // Whose memory this is; nullptr: the host reads and writes it.
  virtual DeviceOps* device() { return nullptr; }
  // Copies between two allocations of this backend that do not overlap.
  virtual void copy(void* target, const void* source, int64_t bytes) = 0;
  // The same from and to the host's memory. `source` may change as soon as upload() returns; download() has
  // the bytes then.
  virtual void upload(void* target, const void* source, int64_t bytes);
  virtual void download(void* target, const void* source, int64_t bytes);

  // What an allocation of `bytes` really takes: the device's granule is part of it.
  int64_t held_bytes(int64_t bytes) const;

  // Uninitialised memory, aligned to 64 bytes. Throws InputError naming `purpose` ("page tables", ...) and
  // the sizes where the memory is not to be had. bytes >= 0; 0 gives nullptr.
  void* allocate(int64_t bytes, std::string_view purpose, MemoryUse use = MemoryUse::kAny);
  // `bytes` as given to allocate().
  void free(void* memory, int64_t bytes) noexcept;

  // Sum of held_bytes() over all live allocations, now and at most so far.
  int64_t allocated_bytes() const { return allocated_.load(std::memory_order_relaxed); }
  int64_t peak_bytes() const { return peak_.load(std::memory_order_relaxed); }

 protected:
  explicit Backend(int64_t granule_bytes) : granule_(granule_bytes) {}
  // nullptr where the device has no such memory left; bytes is a multiple of the granule.
  virtual void* raw_allocate(int64_t bytes, MemoryUse use) = 0;
  virtual void raw_free(void* memory, int64_t bytes) noexcept = 0;

 private:
  int64_t granule_;
  std::atomic<int64_t> allocated_{0};
  std::atomic<int64_t> peak_{0};
};

std::unique_ptr<Backend> make_cpu_backend();

// A device's memory. Calls of the back end may come from any thread, as long as nothing else uses the device
// beside them.
std::unique_ptr<Backend> make_device_backend(std::shared_ptr<DeviceOps> device);

// Owns one allocation of a Backend; move-only.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Backend& backend, int64_t bytes, std::string_view purpose, MemoryUse use = MemoryUse::kAny);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }  // as asked for
  int64_t held_bytes() const { return backend_ ? backend_->held_bytes(bytes_) : 0; }

 private:
  Backend* backend_ = nullptr;
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace kva
