#include <cstdlib>
#include <cstring>

#include "runtime/backend/backend.h"

namespace kva {
namespace {

constexpr int64_t kAlignment = 64;  // a cache line, and the widest vector

class CpuBackend : public Backend {
 public:
  CpuBackend() : Backend(kAlignment) {}
  std::string name() const override { return "cpu"; }
  void copy(void* target, const void* source, int64_t bytes) override {
    if (bytes > 0) std::memcpy(target, source, static_cast<std::size_t>(bytes));
  }

 protected:
  void* raw_allocate(int64_t bytes) override {
    return std::aligned_alloc(kAlignment, static_cast<std::size_t>(bytes));
  }
  void raw_free(void* memory, int64_t) noexcept override { std::free(memory); }
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend() { return std::make_unique<CpuBackend>(); }

}  // namespace kva
