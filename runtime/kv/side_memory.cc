#include "runtime/kv/side_memory.h"

#include "kernels/check.h"
#include "kernels/convert.h"

namespace kva {

SideArray::SideArray(std::shared_ptr<SideMemory> memory, int64_t bytes, std::string_view purpose)
    : memory_(std::move(memory)), buffer_(memory_->backend(), bytes, purpose), purpose_(purpose) {
  memory_->held_bytes_ += buffer_.held_bytes();
}

SideArray::~SideArray() {
  if (!memory_) return;
  memory_->held_bytes_ -= buffer_.held_bytes();
  memory_->device_bytes_ -= copy_.held_bytes();
}

const std::byte* SideArray::on_device() const {
  if (copy_.data() || bytes() == 0) return copy_.data();
  KVA_CHECK(memory_ && memory_->device_, "side memory of a cache on a device");
  Buffer copy(*memory_->device_, bytes(), purpose_);
  memory_->device_->upload(copy.data(), data(), bytes());
  copy_ = std::move(copy);
  memory_->device_bytes_ += copy_.held_bytes();
  return copy_.data();
}

SideArray make_f16_array(std::shared_ptr<SideMemory> memory, std::span<const float> numbers,
                         std::string_view purpose) {
  const auto count = static_cast<int64_t>(numbers.size());
  SideArray array(std::move(memory), count * dtype_bytes(DType::kF16), purpose);
  from_f32(numbers.data(), DType::kF16, array.data(), count);
  return array;
}

}  // namespace kva
