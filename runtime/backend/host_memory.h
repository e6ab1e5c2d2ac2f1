// The host's memory, as Linux tells it.
#pragma once

#include <cstdint>

namespace kva {

struct HostMemory {
  int64_t total_bytes = 0;
  int64_t available_bytes = 0;  // without swapping; INT64_MAX where it cannot be read
};
HostMemory host_memory();

}  // namespace kva
