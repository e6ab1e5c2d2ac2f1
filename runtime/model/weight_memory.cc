#include "runtime/model/weight_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>

namespace kva {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kBlockBytes = std::size_t{32} << 20;

// An address sanitizer finds what is read beyond a matrix only where each has an allocation of its own.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kShareBlocks = false;
#elif defined(__has_feature)
constexpr bool kShareBlocks = !__has_feature(address_sanitizer);
#else
constexpr bool kShareBlocks = true;
#endif

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

void WeightMemory::Free::operator()(std::byte* data) const { std::free(data); }

std::byte* WeightMemory::allocate(int64_t bytes) {
  const std::size_t size = round_up(std::max<std::size_t>(static_cast<std::size_t>(bytes), 1), kAlignment);
  if (!kShareBlocks) return add_block(kAlignment, size);
  if (size > left_) {
    const std::size_t block = round_up(std::max(size, kBlockBytes), kHugePage);
    next_ = add_block(kHugePage, block);
    left_ = block;
    ::madvise(next_, block, MADV_HUGEPAGE);  // only a wish
  }
  left_ -= size;
  return std::exchange(next_, next_ + size);
}

std::byte* WeightMemory::add_block(std::size_t alignment, std::size_t bytes) {
  auto* data = static_cast<std::byte*>(std::aligned_alloc(alignment, bytes));
  if (!data) throw std::bad_alloc();
  return blocks_.emplace_back(data).get();
}

}  // namespace kva
