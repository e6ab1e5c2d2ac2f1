// Where a model's weights lie: side by side on huge pages, where the system has them. A decoding step reads
// all of them once, and on small pages it waits for address translations (measured: a fifth more tokens/s).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace kva {

// Owns all that it gave. Not thread-safe.
class WeightMemory {
 public:
  // Uninitialised, aligned to 64 bytes. Throws std::bad_alloc.
  std::byte* allocate(int64_t bytes);

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };

  std::byte* add_block(std::size_t alignment, std::size_t bytes);

  std::vector<std::unique_ptr<std::byte[], Free>> blocks_;
  std::byte* next_ = nullptr;  // free room of the last block
  std::size_t left_ = 0;
};

}  // namespace kva
