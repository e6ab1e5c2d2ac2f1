#include "runtime/kv/side_memory.h"

namespace kva {

SideArray::SideArray(std::shared_ptr<SideMemory> memory, int64_t bytes, std::string_view purpose)
    : memory_(std::move(memory)), buffer_(memory_->backend(), bytes, purpose) {
  memory_->held_bytes_ += buffer_.held_bytes();
}

SideArray::~SideArray() {
  if (memory_) memory_->held_bytes_ -= buffer_.held_bytes();
}

}  // namespace kva
