// Attention over page tables as work items of bounded length, one warp of the device each: for every query
// head of a KV head the item's pages are read once, and leave one partial state (kernels/attention.h) at a
// place of its own. A table's states are merged in the order of their places, which follows from the table
// and the query alone: results do not depend on the batch, nor on which item ran first.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "kernels/device_page.h"
#include "kernels/host_device.h"

namespace kva {

// Query rows of an item. The queries of one token for the heads of a KV head are neighbouring rows.
inline constexpr int kItemRows = 4;

// Some queries and the pages of one KV head that they read: pages [first_page, first_page + page_count) of
// the batch's pages, in order of position. The last page may end behind the first queries (causal).
struct AttentionTable {
  int32_t first_page = 0;
  int32_t page_count = 0;
  int32_t kv_head = 0;
  int32_t batch_row = 0;  // of the first query
  int32_t tokens = 1;     // query tokens
  int32_t position = 0;   // of the first query
};

// Rows [first_row, first_row + rows) of a table's tokens * group query rows against the pages
// page_list[first_page ...], whose keys are of one kind, and whose values are.
struct AttentionItem {
  int32_t first_page = 0;
  int32_t page_count = 0;  // 0: the state stays empty
  int32_t kv_head = 0;
  int32_t batch_row = 0;
  int32_t position = 0;
  int32_t first_row = 0;
  int32_t rows = 0;   // 0: nothing is done
  int32_t state = 0;  // of the first row; the others' follow
};

// Items [first, first + count) of one pair of kinds.
struct AttentionBucket {
  SideKind keys;
  SideKind values;
  int32_t first;
  int32_t count;
  bool hadamard_keys = false;  // their queries are turned likewise

  friend bool operator==(const AttentionBucket&, const AttentionBucket&) = default;
};

// A table's states: state of row r, n-th in merging order: first_state + n * rows + r. Behind those come the
// `turned` states of values with SideFormat::hadamard, at first_turned.
struct AttentionMerge {
  int32_t first_state;
  int32_t partials;
  int32_t rows;
  int32_t batch_row;
  int32_t kv_head;
  int32_t first_turned = 0;
  int32_t turned = 0;

  KVA_HOST_DEVICE int32_t count() const { return partials + turned; }
  KVA_HOST_DEVICE int64_t state(int32_t n, int32_t row) const {
    return n < partials ? int64_t{first_state} + int64_t{n} * rows + row
                        : int64_t{first_turned} + int64_t{n - partials} * rows + row;
  }

  friend bool operator==(const AttentionMerge&, const AttentionMerge&) = default;
};

struct AttentionLimits {
  int32_t group = 1;          // query heads of a KV head
  int32_t item_tokens = 512;  // tokens of an item, about: its last page may end behind them
  // Of a table at most; longer tables have longer runs, so that states do not grow with the context.
  int32_t most_runs = 128;
  // Of a table at most, where that leaves a run: one with many query rows has fewer runs.
  int32_t most_states = std::numeric_limits<int32_t>::max();
};

struct AttentionPlan {
  std::vector<AttentionItem> items;  // by bucket
  std::vector<AttentionBucket> buckets;
  std::vector<int32_t> page_list;  // indices into the batch's pages
  std::vector<AttentionMerge> merges;
  int32_t states = 0;
  int32_t turned_states = 0;  // the last of them: their sums are to be turned back before they are merged
  int32_t longest_page = 0;   // tokens
};

// What of a plan is decided when it is launched; all else is read on the device, where it may change.
struct AttentionGrid {
  AttentionGrid() = default;
  AttentionGrid(const AttentionPlan& plan);  // NOLINT: a plan is launched by its grid

  std::vector<AttentionBucket> buckets;
  int32_t tables = 0;        // merges
  int32_t rows = 0;          // the most of a table
  int32_t longest_page = 0;  // tokens

  friend bool operator==(const AttentionGrid&, const AttentionGrid&) = default;
};

// Rounds up to powers of two: how many items each bucket has, by items without rows, which do nothing, and
// how many states, so that the launches of a growing context stay the same for long.
void round_up(AttentionPlan& plan);

// pages: of the whole batch. Every key and value format has 0 < tokens of its pages <= kMostPageTokens and a
// width that is a multiple of 8; values are not packed by channel.
AttentionPlan plan_attention(std::span<const DevicePage> pages, std::span<const SideFormat> formats,
                             std::span<const AttentionTable> tables, const AttentionLimits& limits);

// Tokens of the longest run of a table with so many tokens and query rows: what an item has at most, but for
// the rest of a page.
int64_t run_tokens(int64_t tokens, int64_t rows, const AttentionLimits& limits);

// What attention must move for the plan: each page's payload, biases and entry once for each of its table's
// reads (not for each query row of the same token block), queries in, states out and in, results out.
int64_t attention_bytes(const AttentionPlan& plan, std::span<const DevicePage> pages,
                        std::span<const SideFormat> formats, int64_t head_dim);

}  // namespace kva
