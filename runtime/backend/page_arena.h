// Memory for allocations under a huge page's size that comes to lie on huge pages all the same. A cache of
// many small slabs costs an address translation for every 4 KiB that attention reads; here slabs lie side by
// side, and each 2 MiB of them become one huge page as soon as they are all handed out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

namespace kva {

// Address space is reserved in regions and made usable in blocks of 2 MiB, at the lowest address that fits.
// Nothing that was not handed out is touched, and whole pages of 4 KiB that were freed go back to the system:
// what is resident is what is handed out, to the page, and to under 1% in a block that became huge. (A huge
// page with parts given back is split by Linux when memory runs short.) Thread-safe.
class PageArena {
 public:
  static constexpr int64_t kBlockBytes = int64_t{2} << 20;
  static constexpr int64_t kLeastBytes = int64_t{16} << 10;  // of an allocation
  static constexpr int64_t kAlignment = 64;
  // Full blocks wait until so many do, and an eighth of all: a call has costs of its own, and so much memory
  // the processor's second table of translations covers.
  static constexpr int64_t kLeastWaiting = 4;

  // region_bytes: of address space, reserved at a time; a multiple of kBlockBytes.
  explicit PageArena(int64_t region_bytes = int64_t{1} << 30);
  // Unmaps everything, what is still handed out too.
  ~PageArena();
  PageArena(const PageArena&) = delete;
  PageArena& operator=(const PageArena&) = delete;

  // Uninitialised memory; nullptr where the system gives none. bytes: a multiple of kAlignment, from
  // kLeastBytes to under kBlockBytes.
  void* allocate(int64_t bytes);
  // `bytes` as given to allocate(). False, and nothing done, for memory that is not from here.
  bool free(void* memory, int64_t bytes) noexcept;

  // How many blocks were made huge pages so far; one whose parts come and go is made one more than once.
  int64_t collapsed_blocks() const;

 private:
  struct Block {
    int64_t free_bytes = kBlockBytes;
    int64_t freed_since = 0;  // bytes, since it was asked to be huge
    bool asked = false;

    bool full() const { return free_bytes < kLeastBytes; }
    bool waiting() const { return full() && !asked; }
  };
  struct Region {
    std::byte* memory = nullptr;
    int64_t usable = 0;               // bytes from the front that may be read and written
    std::map<int64_t, int64_t> free;  // offset -> bytes; neighbours are joined
    std::vector<Block> blocks;
  };
  using Extent = std::map<int64_t, int64_t>::iterator;

  bool reserve_region();
  void* take(Region& region, int64_t bytes);
  static void give_back(Region& region, Extent extent, int64_t begin, int64_t end) noexcept;
  static Extent insert_free(Region& region, int64_t begin, int64_t end);
  // Counts `bytes` of the region's blocks from `begin` on as free (sign 1) or handed out (-1).
  void count(Region& region, int64_t begin, int64_t bytes, int sign) noexcept;
  void collapse_waiting();
  void collapse(std::byte* memory, int64_t blocks);

  const int64_t region_bytes_;
  mutable std::mutex mutex_;
  std::vector<Region> regions_;
  int64_t full_ = 0, waiting_ = 0;  // blocks
  int64_t collapsed_ = 0;
  bool can_collapse_ = true;
};

}  // namespace kva
