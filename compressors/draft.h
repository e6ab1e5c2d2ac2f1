// One page of a sequence on its way through a recipe: the numbers of all its cells, and what the steps made
// of them so far. Steps change the draft; the plan is made from what is left (plan_of()).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/check.h"
#include "kernels/parallel.h"
#include "kernels/views.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/kv/plan.h"

namespace kva {

// One side of one KV head of one layer.
struct Cell {
  int layer = 0;
  int kv_head = 0;
  Side side = Side::kKey;
  friend bool operator==(const Cell&, const Cell&) = default;
};

// Numbers that are to be stored as one side of the page store.
struct DraftStream {
  using Wrap = std::function<std::shared_ptr<const SideCodec>(std::shared_ptr<const SideCodec> inner)>;

  std::vector<float> rows;  // [tokens, width]
  bool unread = false;      // no step wanted to see them: they are where the cache has them, and nowhere else
  // Where unread: not the origin's numbers, but the directions between them and those of this cell's page,
  // `share` of the way (kernels/direction_math.h).
  std::optional<Cell> towards;
  double share = 0.0;
  int64_t tokens = 0;
  int64_t width = 0;
  Cell origin;              // the cell it was read from; of a shared stream the lowest one
  std::vector<Cell> cells;  // that will refer to it; none: only other streams build on it
  int base = -1;            // stream it builds on, an earlier one

  // The codec where a step fixed it whole; else the format below inside the wraps, the last one innermost.
  std::shared_ptr<const SideCodec> codec;
  std::vector<std::byte> payload;  // of `codec`, where the step has encoded the rows already
  std::shared_ptr<const SideCodec> format;
  std::vector<Wrap> wraps;
  // A live side whose dense bytes were the same: used in its place where their encodings are equal too.
  std::vector<PageAddress> equals;
  // Its rows are not those of its cells' page: it is stored even where no step gave it a format, as pages are
  // while they fill.
  bool changed = false;
  // A live side to use in its place, whatever its bytes.
  SideId alias = kNoSide;

  MatView<const float> view() const {
    KVA_CHECK(!unread, "a step that looks at numbers says so");
    return MatView<const float>(rows.data(), tokens, width);
  }
  // Whether a format step may still choose how its numbers are stored.
  bool unformatted() const { return !codec && !format && alias == kNoSide; }
  bool dropped() const { return cells.empty() && !shared; }
  bool shared = false;  // other streams build on it
  // Of one whose rows nobody wanted to see: they are the coefficients of what these cells have in the cache.
  std::vector<Cell> joined = {};
  std::shared_ptr<const RowProjection> projection = {};
};

// Where the tokens of one table's page stand once some are gone.
struct DraftPlaces {
  int layer = 0;
  int kv_head = 0;
  std::vector<int32_t> positions;  // ascending
  std::vector<float> biases;       // added to the tokens' scores: log n where one stands for n
  bool changed = false;            // not as the cache has it
};

struct Draft {
  SequenceId sequence = 0;
  int64_t page = 0;    // that its tokens filled, counted from the sequence's first
  int64_t start = 0;   // position of the page's first token
  int64_t tokens = 0;  // that filled it; a stream may have fewer
  std::vector<DraftStream> streams;
  std::vector<DraftPlaces> places;  // of tables with gaps in the page; elsewhere tokens stand at start, ...

  // Where the cell's page is in its table now: earlier pages may have gone.
  PageAddress address(const Cell& cell) const;
  int kv_heads = 0;
  std::vector<int64_t> table_pages;  // [layer * kv_heads + KV head]: the page's index in each table
  std::size_t table_of(const Cell& cell) const {
    return static_cast<std::size_t>(cell.layer) * static_cast<std::size_t>(kv_heads) +
           static_cast<std::size_t>(cell.kv_head);
  }

  // The stream that `cell` refers to; null where the cell is not of this draft.
  DraftStream* stream_of(const Cell& cell);
  // Null where the table's page has no gaps.
  const DraftPlaces* places_of(int layer, int kv_head) const;
  // Whether both tables' tokens stand at the same positions with the same biases.
  bool same_places(const Cell& a, const Cell& b) const;
  // From now on the page of this table holds these tokens only, at least one. Whoever calls has made the rows
  // of both its streams theirs.
  void place(DraftPlaces places);
};

// Where page `page` of the sequence (the one that tokens [page * page size, ...) filled) is in the table: it
// counts from the end, as pages that steps have not taken yet are the last, one a page's worth of tokens.
// Negative: earlier pages have gone, and it with them.
int64_t page_in_table(const KvCache& cache, SequenceId sequence, int layer, int kv_head, int64_t page);

// Reads the cells' page from the cache, one stream a cell; its numbers only where they are wanted. Bit-equal
// at any thread count.
Draft read_draft(const KvCache& cache, SequenceId sequence, int64_t page, std::span<const Cell> cells,
                 ThreadPool& pool, bool numbers = true);

Lane lane_of(const DraftStream& stream);

// The codec that the stream will be stored with; null where it stays as it is.
std::shared_ptr<const SideCodec> codec_of(const DraftStream& stream, const KvCache& cache);

// call(), whose InputError is of the cell's page at `position`.
void at_page(const Cell& cell, int64_t position, const std::function<void()>& call);

// Rows of the cell's page at `position` in a codec. Throws InputError, naming layer, head and side, for
// numbers that it refuses.
std::vector<std::byte> encoded_payload(const Cell& cell, int64_t position, MatView<const float> rows,
                                       const SideCodec& codec, const SideData& base);

// Encodes what has a codec or format or was changed, or leaves that to a cache that can do it where the page
// lies, and plans the edits and, for tables with changed places,
// the rewrites; streams of no such kind stay as they are. Throws
// InputError, naming layer, head and side, for numbers that a codec refuses.
Plan plan_of(const Draft& draft, const KvCache& cache, ThreadPool& pool);

// "layer 3, KV head 1, K": for errors.
std::string cell_name(const Cell& cell);

}  // namespace kva
