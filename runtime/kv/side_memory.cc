#include "runtime/kv/side_memory.h"

#include "kernels/convert.h"

namespace kva {

SideArray::SideArray(std::shared_ptr<SideMemory> memory, int64_t bytes, std::string_view purpose)
    : memory_(std::move(memory)), buffer_(memory_->backend(), bytes, purpose) {
  memory_->held_bytes_ += buffer_.held_bytes();
}

SideArray::~SideArray() {
  if (memory_) memory_->held_bytes_ -= buffer_.held_bytes();
}

SideArray make_f16_array(std::shared_ptr<SideMemory> memory, std::span<const float> numbers,
                         std::string_view purpose) {
  const auto count = static_cast<int64_t>(numbers.size());
  SideArray array(std::move(memory), count * dtype_bytes(DType::kF16), purpose);
  from_f32(numbers.data(), DType::kF16, array.data(), count);
  return array;
}

}  // namespace kva
