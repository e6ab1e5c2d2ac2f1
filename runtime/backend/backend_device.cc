#include <mutex>
#include <utility>

#include "kernels/device_ops.h"
#include "runtime/backend/backend.h"

namespace kva {
namespace {

constexpr int64_t kAlignment = 256;  // DeviceOps::allocate()'s

// A device takes one call at a time, while pages are read by many threads.
class DeviceBackend : public Backend {
 public:
  explicit DeviceBackend(std::shared_ptr<DeviceOps> device)
      : Backend(kAlignment), device_(std::move(device)) {}

  std::string name() const override { return device_->name(); }
  DeviceOps* device() override { return device_.get(); }
  void copy(void* target, const void* source, int64_t bytes) override {
    if (bytes == 0) return;
    const std::scoped_lock lock(mutex_);
    device_->copy(target, source, bytes);
  }
  void upload(void* target, const void* source, int64_t bytes) override {
    if (bytes == 0) return;
    const std::scoped_lock lock(mutex_);
    device_->upload(target, source, bytes);
  }
  void download(void* target, const void* source, int64_t bytes) override {
    if (bytes == 0) return;
    const std::scoped_lock lock(mutex_);
    device_->download(target, source, bytes);
  }

 protected:
  void* raw_allocate(int64_t bytes, MemoryUse) override {
    const std::scoped_lock lock(mutex_);
    return device_->allocate(bytes);
  }
  void raw_free(void* memory, int64_t) noexcept override {
    const std::scoped_lock lock(mutex_);
    device_->free(memory);
  }

 private:
  std::shared_ptr<DeviceOps> device_;
  std::mutex mutex_;
};

}  // namespace

std::unique_ptr<Backend> make_device_backend(std::shared_ptr<DeviceOps> device) {
  return std::make_unique<DeviceBackend>(std::move(device));
}

}  // namespace kva
