// Whether there is enough memory, asked before the work starts.
#pragma once

#include <cstdint>

namespace kva {

// Throws InputError where `needed_bytes` exceed the limit, or, where the limit is 0, what the machine has
// available (unknown: no check).
void check_memory(int64_t needed_bytes, int64_t limit_bytes);

}  // namespace kva
