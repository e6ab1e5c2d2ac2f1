// The memory of lane_device.h: allocations of one stretch of address space that has no access rights except
// while the device works.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

#include "kernels/device_ops.h"

namespace kva {

// Thread-safe. Aborts where memory is not its own, is freed twice or outlives it.
class LaneMemory {
 public:
  explicit LaneMemory(int64_t bytes);
  ~LaneMemory();
  LaneMemory(const LaneMemory&) = delete;
  LaneMemory& operator=(const LaneMemory&) = delete;

  DeviceMemory counted() const;
  // Null where no free part is long enough.
  void* allocate(int64_t bytes);
  void free(void* memory) noexcept;

  // `memory`, of which `bytes` bytes lie in one live allocation.
  template <typename T>
  T* held(T* memory, int64_t bytes) const {
    check_held(reinterpret_cast<const std::byte*>(memory), bytes);
    return memory;
  }

  // The device's own work, one at a time: the host may use its memory for so long.
  class Access {
   public:
    explicit Access(LaneMemory& memory);
    ~Access();
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;

   private:
    LaneMemory& memory_;
    const std::scoped_lock<std::mutex> lock_;
  };

 private:
  void protect(int rights);
  void check_held(const std::byte* memory, int64_t bytes) const;

  std::mutex work_;
  mutable std::mutex lists_;  // of free_ and taken_
  std::byte* memory_ = nullptr;
  int64_t bytes_;
  std::map<int64_t, int64_t> free_;   // offset -> bytes; neighbours are joined
  std::map<int64_t, int64_t> taken_;  // the same, handed out
  int64_t used_ = 0;
  int64_t peak_ = 0;
};

}  // namespace kva
