// Stored keys in another basis: turned on by the difference of what the two bases turn them by.
#pragma once

#include <cstdint>

#include "kernels/rope.h"
#include "runtime/kv/kv_cache.h"

namespace kva {

// values: one page, [kv_heads, tokens, head_dim], whose first token stands at `start`; turned in place. The
// same basis changes no bit; another one rounds to f32, within the bounds that kernels/rope.h states.
void rebase_keys(const Rope& rope, KeyBasis from, KeyBasis to, int64_t start, int64_t tokens,
                 int64_t kv_heads, float* values);

}  // namespace kva
