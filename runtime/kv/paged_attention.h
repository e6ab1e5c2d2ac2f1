// Attention over page tables, page by page: each side is read through its codec, each run of pages gives a
// partial state, and states merge in page order.
//
// Runs are cut by tokens alone, so results are bit-equal at any thread count and in any batch. A span with
// few query rows (decoding) reads pages through the codec's scores() and accumulate(), one run of pages a
// work item; there are so few runs that the workspace does not grow with the context. A span with many
// (prefill) decodes each tile of pages once for a block of queries and multiplies with BLAS.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/attention.h"
#include "kernels/parallel.h"
#include "kernels/views.h"
#include "runtime/backend/backend.h"
#include "runtime/kv/attention_masses.h"
#include "runtime/kv/batch.h"
#include "runtime/kv/kv_cache.h"
#include "runtime/kv/page_store.h"
#include "runtime/kv/page_table.h"
#include "runtime/kv/turn_table.h"

namespace kva {

// A span of queries and what they read: one table for each KV head.
struct AttentionSpan {
  BatchSpan span;
  std::span<const PageTable> tables;
  // The sequence's masses, and which of its tables is the first here; none where nobody asked.
  AttentionMasses* masses = nullptr;
  std::size_t first_table = 0;

  MassTargets targets(int kv_head) const {
    return masses ? masses->targets(first_table + static_cast<std::size_t>(kv_head), span) : MassTargets();
  }
};

// Everything passed to the constructor outlives the object. Used by one thread at a time.
class PagedAttention {
 public:
  PagedAttention(const KvCacheOptions& options, const PageStore& store, const TurnTable& turns,
                 Backend& backend, ThreadPool& pool);

  // Causal: a query sees the keys at its own position and before. q, out: [rows, heads * head_dim], Q before
  // RoPE. The turn table covers the spans' positions.
  //
  // Where a mass or a map is asked for, a second pass computes the scores again, now with each query's final
  // maximum and sum, and adds exp(score - max) / sum, averaged over the query heads of a KV head. It is split
  // by keys and takes queries in order, so the sums are bit-equal at any thread count and in any batch.
  void attend(std::span<const AttentionSpan> spans, MatView<const float> q, MatView<float> out);

  int64_t workspace_bytes() const {
    return scratch_.held_bytes() + states_.held_bytes() + finals_.held_bytes();
  }
  double observe_seconds() const { return observe_seconds_; }  // spent in second passes so far

 private:
  // Some of a span's queries against one KV head: against one run of pages, or, tiled, against all they see.
  struct Item {
    const AttentionSpan* of = nullptr;
    int kv_head = 0;
    int64_t first_token = 0;  // within the span
    int64_t tokens = 0;
    std::span<const PageRef> pages;
    int64_t state_row = kTiled;  // of its first query among the states
    // Where positions are relative to the cache: of the first page's first token; and how many tokens the
    // table has lost, all of them before the queries.
    int64_t first_index = 0;
    int64_t lost_tokens = 0;

    int64_t position() const { return of->span.start + first_token; }
  };
  static constexpr int64_t kTiled = -1;
  // The maximum and sum of an item's query rows once all keys are in.
  struct Finals {
    float* max;
    float* sum;
  };

  struct Scratch {
    float* queries;      // [max_rows_, head_dim]
    float* turned;       // [max_rows_, head_dim]: queries turned for one page; tiled: o of the states
    float* max;          // [max_rows_]
    float* sum;          // [max_rows_]
    float* scores;       // [score_values_]
    float* tile;         // [tile_tokens_, head_dim]
    float* coordinates;  // [kMaxCodecQueries, widest coordinates]
    float* codec;        // what the codecs ask for
  };

  void plan(std::span<const AttentionSpan> spans);
  void plan_runs(const Item& all);
  bool cache_relative() const { return options_.positions == PositionMode::kCacheRelative; }
  // How many of the pages' tokens are there for the position encoding; counted where it is relative to the
  // cache, else 0.
  int64_t indexed_tokens(std::span<const PageRef> pages) const;
  // All the span's queries and all the head's pages.
  Item whole_table(const AttentionSpan& of, int head) const;
  void reserve();
  // Over the pool where the call under way is worth it.
  void for_items(const std::function<void(const Item& item, int worker)>& body) const;
  Scratch scratch(int worker) const;
  PartialState states(int64_t row, int64_t rows) const;
  MatView<float> gather(const Item& item, MatView<const float> q, float* target) const;
  void scatter(const Item& item, const PartialState& state, float* rows, MatView<float> out) const;

  void attend_run(const Item& item, MatView<const float> q, int worker) const;
  void run_scores(const Item& item, MatView<const float> queries, const Scratch& s,
                  MatView<float> scores) const;
  void run_values(const Item& item, MatView<float> weights, const Scratch& s, MatView<float> out) const;
  int64_t scratch_values() const;
  void merge_runs(MatView<float> out) const;

  void attend_tiled(const Item& item, MatView<const float> q, MatView<float> out, int worker) const;
  MatView<const float> turned_queries(const Item& item, const PageRef& ref, MatView<const float> queries,
                                      float* target) const;
  // A side of pages[at], and the payload that is to be fetched while it is read.
  SideData side_data(std::span<const PageRef> pages, std::size_t at, Side side) const;
  MatView<float> decode_keys(std::span<const PageRef> pages, int64_t first_index, const Scratch& s) const;
  void turn_plain_keys(const PageRef& ref, int64_t index, MatView<float> keys) const;
  MatView<float> decode_values(std::span<const PageRef> pages, const Scratch& s) const;

  void mask(const Item& item, const PageRef& ref, MatView<float> scores) const;

  Finals finals(const Item& item) const;
  void plan_observation(std::span<const AttentionSpan> spans);
  // Calls body with the item cut into the runs or tiles that a worker reads at a time, in page order.
  template <typename Body>
  void for_runs(const Item& all, Body body) const;
  void observe(std::span<const AttentionSpan> spans, MatView<const float> q);
  void observe_run(const Item& item, MatView<const float> q, int worker) const;
  void observe_tile(const Item& item, MatView<const float> q, int worker) const;
  int64_t last_position(const PageRef& ref) const;
  bool counts(const Item& item, const MassTargets& targets) const;
  void add_masses(const Item& item, const MassTargets& targets, const PageRef& ref,
                  MatView<const float> scores) const;
  void add_near(const Item& item, const PageRef& ref, MatView<const float> scores, float* totals) const;
  void add_to_map(const Item& item, AttentionMap& map, const PageRef& ref, MatView<const float> scores) const;

  const KvCacheOptions& options_;
  const PageStore& store_;
  const TurnTable& turns_;
  Backend& backend_;
  ThreadPool& pool_;
  int64_t group_;         // query heads of a KV head
  int64_t block_tokens_;  // query tokens of a tiled item
  int64_t max_rows_;      // query rows of any item
  int64_t run_tokens_;
  int64_t tile_tokens_;
  int64_t score_values_;
  std::vector<Item> items_;  // of the call under way; items of one span and head are adjacent, in page order
  int64_t state_rows_ = 0;
  int64_t products_ = 0;  // multiplications of the call under way
  int64_t rows_ = 0;      // of its batch
  bool observing_ = false;
  double observe_seconds_ = 0.0;
  Buffer scratch_;
  Buffer states_;
  Buffer finals_;  // max, then sum: [kv_heads, rows_, group_]
};

}  // namespace kva
