// The second pass of PagedAttention: what each key got of the queries' attention.

#include <algorithm>
#include <array>

#include "kernels/tile_product.h"
#include "runtime/clock.h"
#include "runtime/kv/paged_attention.h"

namespace kva {

PagedAttention::Finals PagedAttention::finals(const Item& item) const {
  const int64_t row = item.kv_head * rows_ + item.of->span.first_row + item.first_token;
  float* max = reinterpret_cast<float*>(finals_.data()) + row * group_;
  return {max, max + options_.kv_heads * rows_ * group_};
}

int64_t PagedAttention::last_position(const PageRef& ref) const {
  return PagePlaces(store_, ref).last_position();
}

// Whether any of the item's queries adds to a mass of any of its keys.
bool PagedAttention::counts(const Item& item, const MassTargets& targets) const {
  const int64_t end = item.position() + item.tokens;
  if (end <= item.pages.front().start) return false;
  const AttentionMasses& masses = *item.of->masses;
  return targets.all || targets.map || (targets.late && end > masses.late_start) ||
         (targets.near && item.position() - last_position(item.pages.back()) < masses.near_tokens);
}

template <typename Body>
void PagedAttention::for_runs(const Item& all, Body body) const {
  Item run = all;
  for (auto pages = all.pages; !pages.empty(); pages = pages.subspan(run.pages.size())) {
    run.pages = front_run(pages, all.state_row == kTiled ? tile_tokens_ : run_tokens_);
    body(run);
    run.first_index += indexed_tokens(run.pages);
  }
}

// One item a run or tile of pages, so that each position is added to by one thread; of a map, whose blocks of
// keys lie across them, one item a table.
void PagedAttention::plan_observation(std::span<const AttentionSpan> spans) {
  items_.clear();
  for (const AttentionSpan& of : spans) {
    const bool tiled = of.span.tokens * group_ > kMaxCodecQueries;
    for (int h = 0; h < options_.kv_heads; ++h) {
      const MassTargets targets = of.targets(h);
      if (!targets.any()) continue;
      Item item = whole_table(of, h);
      if (!tiled) item.state_row = 0;
      if (targets.map)
        items_.push_back(item);
      else
        for_runs(item, [&](const Item& run) {
          if (counts(run, targets)) items_.push_back(run);
        });
    }
  }
}

void PagedAttention::observe(std::span<const AttentionSpan> spans, MatView<const float> q) {
  const auto start = Clock::now();
  plan_observation(spans);
  for_items([&](const Item& item, int worker) {
    for_runs(item, [&](const Item& run) {
      if (run.state_row == kTiled) return observe_tile(run, q, worker);
      observe_run(run, q, worker);
    });
  });
  observe_seconds_ += seconds_since(start);
}

void PagedAttention::observe_run(const Item& item, MatView<const float> q, int worker) const {
  const Scratch s = scratch(worker);
  const MatView<float> queries = gather(item, q, s.queries);
  const MatView<float> scores(s.scores, queries.rows, total_tokens(item.pages), run_tokens_);
  run_scores(item, queries, s, scores);
  const MassTargets targets = item.of->targets(item.kv_head);
  int64_t column = 0;
  for (const PageRef& ref : item.pages) {
    add_masses(item, targets, ref, scores.col_range(column, ref.tokens));
    column += ref.tokens;
  }
}

// Decodes the tile once for all the span's queries, a block of them at a time.
void PagedAttention::observe_tile(const Item& item, MatView<const float> q, int worker) const {
  const Scratch s = scratch(worker);
  const MatView<float> keys = decode_keys(item.pages, item.first_index, s);
  const MassTargets targets = item.of->targets(item.kv_head);
  for (int64_t first = 0; first < item.tokens; first += block_tokens_) {
    Item block = item;
    block.first_token = first;
    block.tokens = std::min(block_tokens_, item.tokens - first);
    if (!counts(block, targets)) continue;
    const MatView<float> queries = gather(block, q, s.queries);
    const MatView<float> scores(s.scores, queries.rows, keys.rows, tile_tokens_);
    tile_product_transposed(queries, keys, scores);
    int64_t column = 0;
    for (const PageRef& ref : item.pages) {
      const MatView<float> of_page = scores.col_range(column, ref.tokens);
      mask(block, ref, of_page);
      add_masses(block, targets, ref, of_page);
      column += ref.tokens;
    }
  }
}

void PagedAttention::add_masses(const Item& item, const MassTargets& targets, const PageRef& ref,
                                MatView<const float> scores) const {
  std::array<float, kMaxPageTokens> totals;
  const Finals finals = this->finals(item);
  const float share = 1.0f / static_cast<float>(group_);
  const PagePlaces places(store_, ref);
  const auto sum_from = [&](int64_t row) {
    std::fill_n(totals.begin(), ref.tokens, 0.0f);
    add_attention(scores.row_range(row, scores.rows - row), finals.max + row, finals.sum + row,
                  totals.data());
  };
  const auto add_to = [&](float* mass) {
    for (int32_t t = 0; t < ref.tokens; ++t)
      mass[places.position(t)] += share * totals[static_cast<std::size_t>(t)];
  };
  if (targets.all) {
    sum_from(0);
    add_to(targets.all);
  }
  const int64_t early = std::clamp<int64_t>(item.of->masses->late_start - item.position(), 0, item.tokens);
  if (targets.late && early < item.tokens) {
    if (!targets.all || early > 0) sum_from(early * group_);
    add_to(targets.late);
  }
  if (targets.near) {
    std::fill_n(totals.begin(), ref.tokens, 0.0f);
    add_near(item, ref, scores, totals.data());
    add_to(targets.near);
  }
  if (targets.map) add_to_map(item, *targets.map, ref, scores);
}

// The queries of a block at a time.
void PagedAttention::add_to_map(const Item& item, AttentionMap& map, const PageRef& ref,
                                MatView<const float> scores) const {
  std::array<float, kMaxPageTokens> totals;
  const Finals finals = this->finals(item);
  const PagePlaces places(store_, ref);
  const int64_t block = map.block_tokens();
  int64_t count = 0;
  for (int64_t t = 0; t < item.tokens; t += count) {
    const int64_t query = item.position() + t;
    count = std::min(item.tokens - t, block - query % block);
    std::fill_n(totals.begin(), ref.tokens, 0.0f);
    add_attention(scores.row_range(t * group_, count * group_), finals.max + t * group_,
                  finals.sum + t * group_, totals.data());
    for (int32_t i = 0; i < ref.tokens; ++i)
      map.add(query, places.position(i), totals[static_cast<std::size_t>(i)] / static_cast<float>(group_));
  }
}

// Sums what each of the page's keys got of queries less than near_tokens behind it.
void PagedAttention::add_near(const Item& item, const PageRef& ref, MatView<const float> scores,
                              float* totals) const {
  const Finals finals = this->finals(item);
  const int64_t near = item.of->masses->near_tokens;
  const PagePlaces places(store_, ref);
  const int64_t last = places.last_position();
  // Queries that are near the whole page come first.
  const int64_t whole = std::clamp<int64_t>(ref.start + near - item.position(), 0, item.tokens);
  add_attention(scores.row_range(0, whole * group_), finals.max, finals.sum, totals);
  int64_t first = 0;  // of the keys that the query is near to
  for (int64_t t = whole; t < item.tokens && item.position() + t - near < last; ++t) {
    const int64_t far = item.position() + t - near;  // the last position that is not near
    while (places.position(first) <= far) ++first;
    const int64_t row = t * group_;
    add_attention(scores.row_range(row, group_).col_range(first, ref.tokens - first), finals.max + row,
                  finals.sum + row, totals + first);
  }
}

}  // namespace kva
