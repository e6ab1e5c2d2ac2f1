#include "tests/kernels/lane_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <iterator>
#include <numeric>

#include "kernels/check.h"

namespace kva {
namespace {

constexpr int64_t kAligned = 256;

}  // namespace

LaneMemory::LaneMemory(int64_t bytes) : bytes_(bytes) {
  void* memory = ::mmap(nullptr, static_cast<std::size_t>(bytes), PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  KVA_CHECK(memory != MAP_FAILED, "address space for a device");
  memory_ = static_cast<std::byte*>(memory);
  free_[0] = bytes;
}

LaneMemory::~LaneMemory() {
  KVA_CHECK(taken_.empty(), "memory outlives its device");
  ::munmap(memory_, static_cast<std::size_t>(bytes_));
}

DeviceMemory LaneMemory::counted() const {
  const std::scoped_lock lock(lists_);
  const int64_t free = std::accumulate(free_.begin(), free_.end(), int64_t{0},
                                       [](int64_t sum, const auto& part) { return sum + part.second; });
  return {.total_bytes = bytes_, .free_bytes = free, .used_bytes = bytes_ - free, .peak_bytes = peak_};
}

void* LaneMemory::allocate(int64_t bytes) {
  KVA_CHECK(bytes > 0, "an allocation of something");
  const std::scoped_lock lock(lists_);
  const int64_t held = (bytes + kAligned - 1) / kAligned * kAligned;
  for (auto part = free_.begin(); part != free_.end(); ++part) {
    if (part->second < held) continue;
    const auto [at, size] = *part;
    free_.erase(part);
    if (size > held) free_[at + held] = size - held;
    taken_[at] = held;
    used_ += held;
    peak_ = std::max(peak_, used_);
    return memory_ + at;
  }
  return nullptr;
}

void LaneMemory::free(void* memory) noexcept {
  const std::scoped_lock lock(lists_);
  const auto part = taken_.find(static_cast<std::byte*>(memory) - memory_);
  KVA_CHECK(part != taken_.end(), "memory of this device, freed once");
  auto [at, size] = *part;
  taken_.erase(part);
  used_ -= size;
  auto next = free_.lower_bound(at);
  if (next != free_.end() && next->first == at + size) {
    size += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin() && std::prev(next)->first + std::prev(next)->second == at)
    std::prev(next)->second += size;
  else
    free_[at] = size;
}

LaneMemory::Access::Access(LaneMemory& memory) : memory_(memory), lock_(memory.work_) {
  memory_.protect(PROT_READ | PROT_WRITE);
}

LaneMemory::Access::~Access() { memory_.protect(PROT_NONE); }

void LaneMemory::protect(int rights) {
  KVA_CHECK(::mprotect(memory_, static_cast<std::size_t>(bytes_), rights) == 0, "rights to memory");
}

void LaneMemory::check_held(const std::byte* memory, int64_t bytes) const {
  const std::scoped_lock lock(lists_);
  const int64_t at = memory - memory_;
  auto part = taken_.upper_bound(at);
  KVA_CHECK(part != taken_.begin() && at + bytes <= std::prev(part)->first + std::prev(part)->second,
            "bytes of the device");
}

}  // namespace kva
