#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "runtime/backend/backend.h"

namespace kva {
namespace {

constexpr int64_t kAlignment = 64;  // a cache line, and the widest vector
constexpr int64_t kHugePage = 2 << 20;

class CpuBackend : public Backend {
 public:
  CpuBackend() : Backend(kAlignment) {}
  std::string name() const override { return "cpu"; }
  void copy(void* target, const void* source, int64_t bytes) override {
    if (bytes > 0) std::memcpy(target, source, static_cast<std::size_t>(bytes));
  }

 protected:
  void* raw_allocate(int64_t bytes) override {
    const std::size_t size = static_cast<std::size_t>(bytes);
    if (bytes < kHugePage) return std::aligned_alloc(kAlignment, size);
    void* memory = std::aligned_alloc(kHugePage, size);
    // Only a wish: reading a large cache costs far fewer address translations with it.
    if (memory) ::madvise(memory, size, MADV_HUGEPAGE);
    return memory;
  }
  void raw_free(void* memory, int64_t) noexcept override { std::free(memory); }
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend() { return std::make_unique<CpuBackend>(); }

}  // namespace kva
