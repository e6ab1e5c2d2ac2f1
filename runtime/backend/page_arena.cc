#include "runtime/backend/page_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "kernels/check.h"

// Linux 5.14 and 6.1; older headers lack them.
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

namespace kva {
namespace {

constexpr int64_t kPage = 4096;
// Freeing part of a huge page splits it. Once so much of a block was freed, it may become huge again when it
// is full: the copying, 0.4 ms a MiB, is so spread over the filling of that many bytes.
constexpr int64_t kWorthCollapsing = PageArena::kBlockBytes / 8;

int64_t round_down(int64_t at, int64_t unit) { return at / unit * unit; }
int64_t round_up(int64_t at, int64_t unit) { return round_down(at + unit - 1, unit); }

int advise(std::byte* memory, int64_t bytes, int advice) {
  return ::madvise(memory, static_cast<std::size_t>(bytes), advice);
}

}  // namespace

PageArena::PageArena(int64_t region_bytes) : region_bytes_(region_bytes) {
  KVA_CHECK(region_bytes > 0 && region_bytes % kBlockBytes == 0, "regions are whole blocks");
}

PageArena::~PageArena() {
  for (const Region& region : regions_) ::munmap(region.memory, static_cast<std::size_t>(region_bytes_));
}

bool PageArena::reserve_region() {
  const int64_t bytes = region_bytes_ + kBlockBytes;
  void* mapped = ::mmap(nullptr, static_cast<std::size_t>(bytes), PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return false;
  auto* begin = static_cast<std::byte*>(mapped);
  const auto address = static_cast<int64_t>(reinterpret_cast<std::uintptr_t>(begin));
  const int64_t before = round_up(address, kBlockBytes) - address;
  if (before > 0) ::munmap(begin, static_cast<std::size_t>(before));
  ::munmap(begin + before + region_bytes_, static_cast<std::size_t>(kBlockBytes - before));
  // Else a system whose huge pages are always on would make a whole block resident at its first byte.
  advise(begin + before, region_bytes_, MADV_NOHUGEPAGE);
  Region region{.memory = begin + before};
  region.free.emplace(0, region_bytes_);
  region.blocks.resize(static_cast<std::size_t>(region_bytes_ / kBlockBytes));
  regions_.push_back(std::move(region));
  return true;
}

void* PageArena::allocate(int64_t bytes) {
  KVA_CHECK(bytes >= kLeastBytes && bytes < kBlockBytes && bytes % kAlignment == 0, "not for the arena");
  const std::scoped_lock lock(mutex_);
  for (Region& region : regions_)
    if (void* memory = take(region, bytes)) return memory;
  return reserve_region() ? take(regions_.back(), bytes) : nullptr;
}

void* PageArena::take(Region& region, int64_t bytes) {
  const auto found =
      std::find_if(region.free.begin(), region.free.end(), [&](const auto& e) { return e.second >= bytes; });
  if (found == region.free.end()) return nullptr;
  const int64_t begin = found->first, end = begin + bytes;
  if (end > region.usable) {
    const int64_t usable = round_up(end, kBlockBytes);
    if (::mprotect(region.memory + region.usable, static_cast<std::size_t>(usable - region.usable),
                   PROT_READ | PROT_WRITE) != 0)
      return nullptr;
    region.usable = usable;
  }
  auto rest = region.free.extract(found);
  if (rest.mapped() > bytes) {
    rest.key() += bytes;
    rest.mapped() -= bytes;
    region.free.insert(std::move(rest));
  }
  count(region, begin, bytes, -1);
  if (can_collapse_ && waiting_ >= std::max(kLeastWaiting, full_ / 8)) collapse_waiting();
  return region.memory + begin;
}

void PageArena::count(Region& region, int64_t begin, int64_t bytes, int sign) noexcept {
  const int64_t end = begin + bytes;
  for (int64_t index = begin / kBlockBytes; index * kBlockBytes < end; ++index) {
    const int64_t part = std::min(end, (index + 1) * kBlockBytes) - std::max(begin, index * kBlockBytes);
    Block& block = region.blocks[static_cast<std::size_t>(index)];
    full_ -= block.full();
    waiting_ -= block.waiting();
    block.free_bytes += sign * part;
    if (sign > 0) block.freed_since += part;
    if (block.freed_since >= kWorthCollapsing) block.asked = false;
    full_ += block.full();
    waiting_ += block.waiting();
  }
}

void PageArena::collapse_waiting() {
  for (Region& region : regions_) {
    std::size_t end = 0;
    for (std::size_t begin = 0; begin < region.blocks.size(); begin = end + 1) {
      for (end = begin; end < region.blocks.size() && region.blocks[end].waiting(); ++end) {
        region.blocks[end].asked = true;
        region.blocks[end].freed_since = 0;
      }
      if (end > begin)
        collapse(region.memory + static_cast<int64_t>(begin) * kBlockBytes,
                 static_cast<int64_t>(end - begin));
    }
  }
  waiting_ = 0;
}

void PageArena::collapse(std::byte* memory, int64_t blocks) {
  const int64_t bytes = blocks * kBlockBytes;
  advise(memory, bytes, MADV_HUGEPAGE);
  // A block of which no page was touched yet cannot be collapsed.
  for (int64_t i = 0; i < blocks; ++i) advise(memory + i * kBlockBytes, kPage, MADV_POPULATE_WRITE);
  if (advise(memory, bytes, MADV_COLLAPSE) == 0)
    collapsed_ += blocks;
  else if (errno == EINVAL)
    can_collapse_ = false;
  advise(memory, bytes, MADV_NOHUGEPAGE);  // of what is touched from now on
}

bool PageArena::free(void* memory, int64_t bytes) noexcept {
  const std::scoped_lock lock(mutex_);
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  for (Region& region : regions_) {
    const auto start = reinterpret_cast<std::uintptr_t>(region.memory);
    if (address < start || address >= start + static_cast<std::uintptr_t>(region_bytes_)) continue;
    const auto begin = static_cast<int64_t>(address - start);
    const int64_t end = begin + bytes;
    give_back(region, insert_free(region, begin, end), begin, end);
    count(region, begin, bytes, +1);
    return true;
  }
  return false;
}

PageArena::Extent PageArena::insert_free(Region& region, int64_t begin, int64_t end) {
  const auto next = region.free.lower_bound(begin);
  KVA_CHECK(next == region.free.end() || next->first >= end, "memory was freed before");
  if (next != region.free.end() && next->first == end) {
    end += next->second;
    region.free.erase(next);
  }
  const auto after = region.free.lower_bound(begin);
  if (after != region.free.begin()) {
    const auto before = std::prev(after);
    KVA_CHECK(before->first + before->second <= begin, "memory was freed before");
    if (before->first + before->second == begin) {
      before->second = end - before->first;
      return before;
    }
  }
  return region.free.emplace(begin, end - begin).first;
}

// Pages of the extent in the blocks of [begin, end): not only those just freed, since a block becomes huge
// with the small gaps that it has.
void PageArena::give_back(Region& region, Extent extent, int64_t begin, int64_t end) noexcept {
  const int64_t first = std::max(round_up(extent->first, kPage), round_down(begin, kBlockBytes));
  const int64_t last =
      std::min(round_down(extent->first + extent->second, kPage), round_up(end, kBlockBytes));
  if (first < last) advise(region.memory + first, last - first, MADV_DONTNEED);
}

int64_t PageArena::collapsed_blocks() const {
  const std::scoped_lock lock(mutex_);
  return collapsed_;
}

}  // namespace kva
