// The second pass of PagedAttention: what each key got of the queries' attention.

#include <array>
#include <chrono>

#include "kernels/tile_product.h"
#include "runtime/kv/paged_attention.h"

namespace kva {

PagedAttention::Finals PagedAttention::finals(const Item& item) const {
  const int64_t row = item.kv_head * rows_ + item.of->span.first_row + item.first_token;
  float* max = reinterpret_cast<float*>(finals_.data()) + row * group_;
  return {max, max + options_.kv_heads * rows_ * group_};
}

// One item a run or tile of pages, so that each position is added to by one thread.
void PagedAttention::plan_observation(std::span<const AttentionSpan> spans) {
  items_.clear();
  for (const AttentionSpan& of : spans) {
    const bool tiled = of.span.tokens * group_ > kMaxCodecQueries;
    for (int h = 0; h < options_.kv_heads; ++h) {
      const auto head = static_cast<std::size_t>(h);
      if (of.mass.empty() || of.mass[head].empty()) continue;
      std::span<const PageRef> pages(of.tables[head].pages);
      while (!pages.empty()) {
        const auto run = front_run(pages, tiled ? tile_tokens_ : run_tokens_);
        items_.push_back({&of, h, 0, of.span.tokens, run, tiled ? kTiled : 0});
        pages = pages.subspan(run.size());
      }
    }
  }
}

void PagedAttention::observe(std::span<const AttentionSpan> spans, MatView<const float> q) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  plan_observation(spans);
  for_items([&](const Item& item, int worker) {
    if (item.state_row == kTiled) return observe_tile(item, q, worker);
    observe_run(item, q, worker);
  });
  observe_seconds_ += std::chrono::duration<double>(Clock::now() - start).count();
}

void PagedAttention::observe_run(const Item& item, MatView<const float> q, int worker) const {
  const Scratch s = scratch(worker);
  const MatView<float> queries = gather(item, q, s.queries);
  const MatView<float> scores(s.scores, queries.rows, total_tokens(item.pages), run_tokens_);
  run_scores(item, queries, s, scores);
  int64_t column = 0;
  for (const PageRef& ref : item.pages) {
    add_mass(item, ref, scores.col_range(column, ref.tokens));
    column += ref.tokens;
  }
}

// Decodes the tile once for all the span's queries, a block of them at a time.
void PagedAttention::observe_tile(const Item& item, MatView<const float> q, int worker) const {
  const Scratch s = scratch(worker);
  const MatView<float> keys = decode_keys(item.pages, s);
  for (int64_t first = 0; first < item.tokens; first += block_tokens_) {
    Item block = item;
    block.first_token = first;
    block.tokens = std::min(block_tokens_, item.tokens - first);
    if (block.position() + block.tokens <= item.pages.front().start) continue;
    const MatView<float> queries = gather(block, q, s.queries);
    const MatView<float> scores(s.scores, queries.rows, keys.rows, tile_tokens_);
    tile_product_transposed(queries, keys, scores);
    int64_t column = 0;
    for (const PageRef& ref : item.pages) {
      const MatView<float> of_page = scores.col_range(column, ref.tokens);
      mask(block, ref, of_page);
      add_mass(block, ref, of_page);
      column += ref.tokens;
    }
  }
}

void PagedAttention::add_mass(const Item& item, const PageRef& ref, MatView<const float> scores) const {
  std::array<float, kMaxPageTokens> totals;
  std::fill_n(totals.begin(), ref.tokens, 0.0f);
  const Finals finals = this->finals(item);
  add_attention(scores, finals.max, finals.sum, totals.data());
  CountedVector<float>& mass = item.of->mass[static_cast<std::size_t>(item.kv_head)];
  const float share = 1.0f / static_cast<float>(group_);
  const int32_t* positions = ref.where == kNoSide ? nullptr : page_places(store_, ref).positions;
  for (int32_t t = 0; t < ref.tokens; ++t)
    mass[static_cast<std::size_t>(positions ? positions[t] : ref.start + t)] +=
        share * totals[static_cast<std::size_t>(t)];
}

}  // namespace kva
