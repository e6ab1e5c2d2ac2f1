// Page tables: which pages a (sequence, layer, KV head) reads, and where their tokens stand.
#pragma once

#include <cstdint>

#include "runtime/backend/counted_vector.h"
#include "runtime/kv/page_store.h"

namespace kva {

// Token j of the page stands at position start + j.
struct PageRef {
  SideId k = kNoSide;
  SideId v = kNoSide;
  int32_t tokens = 0;
  int64_t start = 0;

  int64_t end() const { return start + tokens; }
};

// In order of position.
using PageTable = CountedVector<PageRef>;

}  // namespace kva
