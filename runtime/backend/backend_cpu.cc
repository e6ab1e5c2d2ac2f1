#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "runtime/backend/backend.h"
#include "runtime/backend/page_arena.h"

namespace kva {
namespace {

constexpr int64_t kAlignment = 64;  // a cache line, and the widest vector
constexpr int64_t kHugePage = PageArena::kBlockBytes;

// An address sanitizer finds what is read beyond an allocation only where malloc made it.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kUseArena = false;
#elif defined(__has_feature)
constexpr bool kUseArena = !__has_feature(address_sanitizer);
#else
constexpr bool kUseArena = true;
#endif

// Only a wish throughout: reading a large cache costs far fewer address translations with huge pages.
class CpuBackend : public Backend {
 public:
  CpuBackend() : Backend(kAlignment) {}
  std::string name() const override { return "cpu"; }
  void copy(void* target, const void* source, int64_t bytes) override {
    if (bytes > 0) std::memcpy(target, source, static_cast<std::size_t>(bytes));
  }

 protected:
  void* raw_allocate(int64_t bytes, MemoryUse use) override {
    const std::size_t size = static_cast<std::size_t>(bytes);
    if (bytes >= kHugePage) {
      void* memory = std::aligned_alloc(kHugePage, size);
      if (memory) ::madvise(memory, size, MADV_HUGEPAGE);
      return memory;
    }
    if (use == MemoryUse::kPages && fits_arena(bytes))
      if (void* memory = arena_.allocate(bytes)) return memory;
    return std::aligned_alloc(kAlignment, size);
  }
  void raw_free(void* memory, int64_t bytes) noexcept override {
    if (!fits_arena(bytes) || !arena_.free(memory, bytes)) std::free(memory);
  }

 private:
  static bool fits_arena(int64_t bytes) {
    return kUseArena && bytes >= PageArena::kLeastBytes && bytes < kHugePage;
  }

  PageArena arena_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend() { return std::make_unique<CpuBackend>(); }

}  // namespace kva
