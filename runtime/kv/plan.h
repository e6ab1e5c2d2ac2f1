// A change to a cache's pages, worked out and not yet made: new sides, already encoded, and which refs are to
// point where. What it will free is known before it is applied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/kv/batch.h"
#include "runtime/kv/codec.h"
#include "runtime/kv/page_store.h"
#include "runtime/kv/page_table.h"
#include "runtime/kv/row_projection.h"

namespace kva {

// The side of one page of one table. Pages are counted along the table as it is when the plan is applied.
struct PageAddress {
  SequenceId sequence = 0;
  int layer = 0;
  int kv_head = 0;
  int64_t page = 0;
  Side side = Side::kKey;
};

// Tokens of a live side of the cache.
struct SideTokens {
  SideId side = kNoSide;
  int32_t first = 0;
  int32_t count = 0;
};

// A side that the plan brings, encoded; or, on a device, tokens of live sides that are to be coded there
// (KvCache::codes_itself()), and no payload.
struct NewSide {
  std::shared_ptr<const SideCodec> codec;
  Lane lane = Lane::kKeys;
  int64_t tokens = 0;
  int64_t width = 0;
  std::vector<std::byte> payload;
  std::vector<SideTokens> sources;
  // Of as many tokens: what is coded are then the directions between the sources and these, `share` of the
  // way (kernels/direction_math.h).
  std::vector<SideTokens> others;
  double share = 0.0;
  // Where it is given, the sources are so many tokens of each of its cells' sides in turn, and the new side
  // holds their coefficients.
  std::shared_ptr<const RowProjection> projection;
  int base = -1;  // index of an earlier new side that it builds on

  int64_t bytes() const { return codec->bytes(tokens, width); }
};

// The ref at `at` is to point to a new side (an index) or to a live side of the cache.
struct PlanEdit {
  PageAddress at;
  int new_side = -1;
  SideId alias = kNoSide;
};

// Pages [first_page, first_page + pages) of a table are replaced by one with these tokens (none: dropped).
// With pages = 0 the page comes before first_page, or behind the last full page: the first rewrite of N pages
// that become several has pages = N, the others 0 and first_page + N. Inserted at one place, they keep their
// order.
struct PlanRewrite {
  SequenceId sequence = 0;
  int layer = 0;
  int kv_head = 0;
  int64_t first_page = 0;
  int64_t pages = 0;
  // New sides, or live ones of the cache, of as many tokens as there are positions.
  int k = -1;
  int v = -1;
  SideId alias_k = kNoSide;
  SideId alias_v = kNoSide;
  std::vector<int32_t> positions;  // ascending; page_tokens of the cache at most
  std::vector<float> biases;       // added to the tokens' scores; empty: none
};

struct Plan {
  std::vector<NewSide> sides;
  std::vector<PlanEdit> edits;
  // Of one table: in ascending order, not overlapping, the positions still ascending along the table
  // afterwards. A page that is rewritten is not edited.
  std::vector<PlanRewrite> rewrites;

  bool empty() const { return edits.empty() && rewrites.empty(); }
};

// "layer 3, KV head 1, K": for errors.
std::string side_name(int layer, int kv_head, Side side);

using TableLookup = std::function<PageTable&(SequenceId sequence, int layer, int kv_head)>;

// Codes what plan.sides[i] names the sources of into sides[i].
using SourceCoder = std::function<void(const Plan& plan, std::span<const SideId> sides)>;

// KvCache::apply() and KvCache::predicted_bytes() on the cache's own store and tables. code: where sides have
// sources.
void apply_plan(const Plan& plan, PageStore& store, const TableLookup& tables, const SourceCoder& code = {});
int64_t predicted_bytes(const Plan& plan, const PageStore& store, const TableLookup& tables);

}  // namespace kva
