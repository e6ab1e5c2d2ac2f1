// std::vector whose memory comes from a Backend and is added to a counter: bookkeeping that the ledger sees.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "runtime/backend/backend.h"
#include "runtime/error.h"

namespace kva {

// The backend and the counter outlive the container.
template <typename T>
struct CountingAllocator {
  using value_type = T;
  using propagate_on_container_move_assignment = std::true_type;
  using propagate_on_container_swap = std::true_type;

  CountingAllocator(Backend& backend_, int64_t& counter_) : backend(&backend_), counter(&counter_) {}
  template <typename U>
  CountingAllocator(const CountingAllocator<U>& other)  // NOLINT: containers rebind
      : backend(other.backend), counter(other.counter) {}

  T* allocate(std::size_t count) {
    constexpr int64_t kMost = std::numeric_limits<int64_t>::max() / static_cast<int64_t>(sizeof(T));
    const int64_t bytes = count > static_cast<std::size_t>(kMost) ? std::numeric_limits<int64_t>::max()
                                                                  : static_cast<int64_t>(count * sizeof(T));
    T* memory = static_cast<T*>(backend->allocate(bytes, "page tables"));
    *counter += backend->held_bytes(bytes);
    return memory;
  }
  void deallocate(T* memory, std::size_t count) noexcept {
    const int64_t bytes = static_cast<int64_t>(count * sizeof(T));
    backend->free(memory, bytes);
    *counter -= backend->held_bytes(bytes);
  }

  template <typename U>
  bool operator==(const CountingAllocator<U>& other) const {
    return backend == other.backend && counter == other.counter;
  }

  Backend* backend;
  int64_t* counter;
};

template <typename T>
using CountedVector = std::vector<T, CountingAllocator<T>>;

// Room for `size` elements; growing in steps of a sixteenth, where doubling would hold up to half of the
// bytes empty.
template <typename T>
void reserve_up_to(CountedVector<T>& values, std::size_t size) {
  if (size > values.capacity()) values.reserve(std::max(size, values.size() + values.size() / 16 + 2));
}

template <typename T>
void reserve_one_more(CountedVector<T>& values) {
  reserve_up_to(values, values.size() + 1);
}

}  // namespace kva
