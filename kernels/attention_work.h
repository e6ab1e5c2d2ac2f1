// Attention over page tables as work items of bounded length, one warp of the device each, or one block where
// they are done in tiles: for every query head of a KV head the item's pages are read once, and leave one
// partial state (kernels/attention.h) at a place of its own. A table's states are merged in the order of
// their places, which follows from the table and the query alone: results do not depend on the batch, nor on
// which item ran first.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "kernels/attention_tiles.h"
#include "kernels/device_page.h"
#include "kernels/host_device.h"

namespace kva {

// Query rows of an item that one warp takes. The queries of one token for the heads of a KV head are
// neighbouring rows.
inline constexpr int kItemRows = 4;
// The same of one that tensor cores do (AttentionBucket::narrow).
inline constexpr int kNarrowRows = 8;

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
// page_list[first_page ...], whose keys are of one kind, and whose values are. At most kItemRows rows, or
// kTiledRows of a bucket with tiles.
struct AttentionItem {
  int32_t first_page = 0;
  int32_t page_count = 0;  // 0: the state stays empty
  int32_t kv_head = 0;
  int32_t batch_row = 0;
  int32_t position = 0;
  int32_t first_row = 0;
  int32_t rows = 0;   // 0: nothing is done
  int32_t state = 0;  // of the first row; the others' follow
  // Where its keys are read in coordinates of their own, the table's projection (its `at`); -1: they are not.
  int32_t queries = -1;
  // The same of values: where the item's first row is summed, in units of 8 numbers; -1: in its state.
  int32_t sums = -1;
  // Numbers from one row of queries, and of sums, to the next.
  uint16_t key_width = 0;
  uint16_t value_width = 0;
};

// How kernels/attention_narrow.h reads pages: not at all; both sides alike, as rows or codes and nothing
// beside them; or with what some keep beside their codes, and sides that may be of other bits.
enum class NarrowKind : uint8_t { kNone, kBare, kKept };

// Items [first, first + count) of one pair of kinds; or, where `general`, of sides that are more than rows or
// codes of as many numbers as a head has, and of pairs of which one side has levels: kernels look at each
// page's formats. With `narrow`, of pages of that narrow_kind() and up to kNarrowRows rows; with `tiles`, of
// up to kTiledRows rows. Both go to tensor cores.
struct AttentionBucket {
  SideKind keys;
  SideKind values;
  int32_t first;
  int32_t count;
  bool general = false;
  NarrowKind narrow = NarrowKind::kNone;
  TileKind tiles = TileKind::kNone;

  friend bool operator==(const AttentionBucket&, const AttentionBucket&) = default;
};

// A table's query rows in the coordinates that some of its pages' keys have. (kernels/attention_coordinates.h
// makes them.)
struct AttentionProjection {
  int32_t page = 0;  // one of those pages; it names the basis, where they have one
  int32_t kv_head = 0;
  int32_t batch_row = 0;
  int32_t rows = 0;  // 0: nothing is done
  int32_t at = 0;    // first row among the plan's coordinate queries, in units of 8 numbers
};

// Sums of values in coordinates of their own, to be brought to the states of the same rows.
struct AttentionLift {
  int32_t page = 0;
  int32_t state = 0;  // of the first row
  int32_t rows = 0;   // 0: nothing is done
  int32_t at = 0;     // first row among the plan's coordinate sums, in units of 8 numbers
};

// A table's states: state of row r, n-th in merging order: first_state + n * rows + r.
struct AttentionMerge {
  int32_t first_state;
  int32_t partials;
  int32_t rows;
  int32_t batch_row;
  int32_t kv_head;

  KVA_HOST_DEVICE int64_t state(int32_t n, int32_t row) const {
    return int64_t{first_state} + int64_t{n} * rows + row;
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
  // Queries or keys are turned page by page (KeyTurning): those that are in coordinates of their own are
  // brought back from there one by one, and nothing is done by tensor cores.
  bool turns = false;
  // Whether pages with a narrow_kind() are in narrow items, where they are not done in tiles.
  bool narrow = true;
  // Tables of several tokens and at least so many query rows are done in tiles with the pages that can be
  // (tile_kind()); 0: none are.
  int32_t tile_rows = 0;
};

struct AttentionPlan {
  std::vector<AttentionItem> items;  // by bucket
  std::vector<AttentionBucket> buckets;
  std::vector<int32_t> page_list;  // indices into the batch's pages
  std::vector<AttentionMerge> merges;
  int32_t states = 0;
  int32_t longest_page = 0;  // tokens
  // Before items run, and before states are merged.
  std::vector<AttentionProjection> projections;
  std::vector<AttentionLift> lifts;
  int32_t coordinate_queries = 0;  // units of 8 numbers that the projections fill
  int32_t coordinate_sums = 0;     // the same of what is lifted
  int32_t widest = 0;              // of the rows that items of a general bucket read by units
  int32_t key_numbers = 0;         // key_numbers() of a page, at most
  int32_t value_numbers = 0;
  int32_t lifted_key = 0;  // floats for a key on its way back from coordinates of its own
};

// Floats of shared memory that a warp gets for what a side's codes stand for: its levels; the products of an
// item's queries with centroids, where they are not too many.
inline constexpr int32_t kMostProducts = 4096;
KVA_HOST_DEVICE constexpr int32_t value_numbers(const SideFormat& format) { return level_count(format.kind); }
KVA_HOST_DEVICE constexpr int32_t key_numbers(const SideFormat& format) {
  if (format.kind != SideKind::kCentroids) return level_count(format.kind);
  const int32_t products = kItemRows * (format.parts << format.code_bits);
  return products <= kMostProducts ? products : 0;
}

// Rows in coordinates lie so many numbers apart.
KVA_HOST_DEVICE constexpr int32_t coordinate_stride(int32_t width) { return (width + 7) / 8 * 8; }
// Whether lanes read rows of so many numbers by units (kernels/packed_math.h), all at once.
inline constexpr int32_t kMostUnitWidth = 256;
KVA_HOST_DEVICE constexpr bool reads_units(int32_t width) {
  return width % 8 == 0 && width <= kMostUnitWidth;
}
// A Hadamard rotation on a device takes so many numbers at most.
inline constexpr int32_t kMostHadamard = 1024;

// What of a plan is decided when it is launched; all else is read on the device, where it may change.
struct AttentionGrid {
  AttentionGrid() = default;
  AttentionGrid(const AttentionPlan& plan);  // NOLINT: a plan is launched by its grid

  std::vector<AttentionBucket> buckets;
  int32_t tables = 0;  // merges
  int32_t rows = 0;    // the most of a table
  int32_t projections = 0;
  int32_t projected_rows = 0;  // the most of a projection
  int32_t lifts = 0;
  int32_t lifted_rows = 0;   // the most of a lift
  int32_t longest_page = 0;  // tokens
  int32_t widest = 0;        // the plan's, as are these
  int32_t key_numbers = 0;
  int32_t value_numbers = 0;
  int32_t lifted_key = 0;

  friend bool operator==(const AttentionGrid&, const AttentionGrid&) = default;
};

// Rounds up to powers of two: how many items each bucket has, and how many projections and lifts there are,
// by such without rows, which do nothing; how many states, and how many coordinates. So the launches of a
// growing context stay the same for long.
void round_up(AttentionPlan& plan);

// pages: of the whole batch. Every key and value format has 0 < tokens of its pages <= kMostPageTokens and,
// but on a basis, a width that is a multiple of 8; values, and bases of values, are not packed by channel.
AttentionPlan plan_attention(std::span<const DevicePage> pages, std::span<const SideFormat> formats,
                             std::span<const AttentionTable> tables, const AttentionLimits& limits);

// Tokens of the longest run of a table with so many tokens and query rows: what an item has at most, but for
// the rest of a page.
int64_t run_tokens(int64_t tokens, int64_t rows, const AttentionLimits& limits);

// Tokens whose scores kernels/attention_narrow.h has at once.
inline constexpr int kNarrowTokens = 64;

// Sides of these kinds are also read beside others of them: f16, and codes.
KVA_HOST_DEVICE constexpr bool mixes_narrow(SideKind kind) {
  return kind == SideKind::kF16 || (kind >= SideKind::kBits8 && kind <= SideKind::kBits2ByChannel);
}
// At these widths. (Kernels of all pairs at all widths would take long to compile.)
KVA_HOST_DEVICE constexpr bool mixes_narrow(int32_t width) { return width == 64 || width == 128; }
// Whether pairs have kernels at every width.
KVA_HOST_DEVICE constexpr bool are_alike(SideKind keys, SideKind values) {
  return side_bits(keys) == side_bits(values);
}

// Of pages of these formats: both sides of f16, of bf16 or of a kind of fp8, or codes with a scale a token,
// or, where rows are channels, a channel; where mixes_narrow(), codes of other bits on each side, or f16 on
// one.
KVA_HOST_DEVICE constexpr NarrowKind narrow_kind(const SideFormat& keys, const SideFormat& values) {
  if (keys.on_basis || values.on_basis || keys.width != values.width || !is_tensor_width(keys.width))
    return NarrowKind::kNone;
  if (keys.kind == values.kind && !is_packed(keys.kind))
    return keys.kind == SideKind::kF32 ? NarrowKind::kNone : NarrowKind::kBare;
  if (!mixes_narrow(keys.kind) || !mixes_narrow(values.kind)) return NarrowKind::kNone;
  for (const SideFormat* side : {&keys, &values})
    if (is_packed(side->kind) && !has_plain_units(*side)) return NarrowKind::kNone;
  const bool alike = are_alike(keys.kind, values.kind), bare = !keeps_numbers(keys) && !keeps_numbers(values);
  if (alike && bare) return NarrowKind::kBare;
  // What is kept is looked up by token, and the lanes of such rows do not go through them in order.
  const bool in_order = keys.kind != SideKind::kBits3ByChannel || keys.tokens <= kNarrowTokens;
  return (alike || mixes_narrow(keys.width)) && (bare || in_order) ? NarrowKind::kKept : NarrowKind::kNone;
}

// What attention must move for the plan: each page's payload, biases and entry once for each of its table's
// reads (not for each query row of the same token block), queries in, states out and in, results out.
int64_t attention_bytes(const AttentionPlan& plan, std::span<const DevicePage> pages,
                        std::span<const SideFormat> formats, int64_t head_dim);

// What attention must compute for the plan: the products of each query row with the keys that it sees, and of
// its weights with their values, two operations a number.
int64_t attention_flops(const AttentionPlan& plan, std::span<const DevicePage> pages, int32_t group,
                        int64_t head_dim);

}  // namespace kva
