// Taking tokens out of a table: masked at once, and out of memory as soon as those that are gone fill a page.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compressors/draft.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/kv/plan.h"

namespace kva {

// A page of a table, and which of its tokens are still read.
struct TablePage {
  int64_t page = 0;                // in the table
  std::vector<int32_t> positions;  // [its tokens]
  std::vector<float> biases;       // as many; -infinity: masked
  std::vector<char> stays;         // as many: whether the token is to be read from now on
  bool changed = false;            // some token that was read is not to be any more

  int64_t tokens() const { return static_cast<int64_t>(positions.size()); }
  int64_t staying() const;
};

// The table's pages of which every token stands before `settled`, with what is masked already.
std::vector<TablePage> table_pages(const KvCache& cache, SequenceId sequence, int layer, int kv_head,
                                   int64_t settled);

struct TableRewrite {
  Plan plan;
  int64_t recoded_tokens = 0;  // encoded again by codecs that lose something, on one side or both
};

// Pages that nobody else refers to are packed anew once they waste as much as a page; the order of tokens
// stays. Others are masked, and go when nothing of them is read. `pages` are consecutive from the table's
// first. Throws InputError, naming layer, head and side, for numbers that a codec refuses.
TableRewrite rewrite_table(const KvCache& cache, SequenceId sequence, int layer, int kv_head,
                           std::span<const TablePage> pages);

}  // namespace kva
