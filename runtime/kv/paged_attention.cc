#include "runtime/kv/paged_attention.h"

#include <algorithm>
#include <limits>

#include "kernels/check.h"
#include "kernels/dense_rows.h"
#include "kernels/fetch.h"
#include "kernels/tile_product.h"

namespace kva {
namespace {

// Both in tokens and independent of the machine: they fix the order of every sum.
constexpr int64_t kRunTokens = 512;
constexpr int64_t kTileTokens = 256;
// Runs of one table at most; longer contexts have longer runs, so that the states of runs do not grow with
// them.
constexpr int64_t kMostRuns = 16;
// Up to so many query rows, reading each page once for all of them beats decoding it to a tile.
constexpr int64_t kFewRows = kMaxCodecQueries;
constexpr int64_t kBlockRows = 192;  // query rows that share a decoded tile, about
// Waking the pool takes some 10 us; so many multiplications take longer.
constexpr int64_t kWorthThreads = 1 << 18;

// The next page comes from somewhere else in memory; the hardware's own prefetch would start too late. So
// many bytes ahead of their use the codec is told to fetch them.
constexpr int64_t kFetchBytes = 4096;

SideId side_of(const PageRef& ref, Side side) { return side == Side::kKey ? ref.k : ref.v; }

}  // namespace

PagedAttention::PagedAttention(const KvCacheOptions& options, const PageStore& store, const TurnTable& turns,
                               Backend& backend, ThreadPool& pool)
    : options_(options), store_(store), turns_(turns), backend_(backend), pool_(pool) {
  group_ = options.heads / options.kv_heads;
  block_tokens_ = std::clamp<int64_t>(kBlockRows / group_, 16, 128);
  max_rows_ = std::max(kFewRows, block_tokens_ * group_);
  run_tokens_ = std::max<int64_t>(kRunTokens, options.page_tokens);
  tile_tokens_ = std::max<int64_t>(kTileTokens, options.page_tokens);
  score_values_ = std::max(kFewRows * run_tokens_, max_rows_ * tile_tokens_);
}

void PagedAttention::plan(std::span<const AttentionSpan> spans) {
  items_.clear();
  state_rows_ = 0;
  products_ = 0;
  rows_ = 0;
  observing_ = false;
  for (const AttentionSpan& of : spans) {
    const int64_t rows = of.span.tokens * group_;
    rows_ = std::max(rows_, of.span.first_row + of.span.tokens);
    for (int h = 0; h < options_.kv_heads; ++h) {
      observing_ |= of.targets(h).any();
      Item item = whole_table(of, h);
      products_ += 2 * rows * total_tokens(item.pages) * options_.head_dim;
      if (rows > kFewRows) {
        for (; item.first_token < of.span.tokens; item.first_token += block_tokens_) {
          item.tokens = std::min(block_tokens_, of.span.tokens - item.first_token);
          items_.push_back(item);
        }
        continue;
      }
      plan_runs(item);
      state_rows_ += kMostRuns * rows;
    }
  }
}

PagedAttention::Item PagedAttention::whole_table(const AttentionSpan& of, int head) const {
  const PageTable& table = of.tables[static_cast<std::size_t>(head)];
  Item item{.of = &of, .kv_head = head, .tokens = of.span.tokens, .pages = table.pages};
  if (cache_relative()) item.lost_tokens = table.end - indexed_tokens(table.pages);
  return item;
}

int64_t PagedAttention::indexed_tokens(std::span<const PageRef> pages) const {
  if (!cache_relative()) return 0;
  int64_t tokens = 0;
  for (const PageRef& ref : pages) {
    tokens += ref.tokens;
    tokens -= PagePlaces(store_, ref).hidden_tokens();
  }
  return tokens;
}

// A run has the pages that begin within its part of the table's tokens.
void PagedAttention::plan_runs(const Item& all) {
  std::span<const PageRef> pages = all.pages;
  const int64_t total = total_tokens(pages);
  const int64_t tokens =
      run_tokens_ * std::max<int64_t>(1, (total + kMostRuns * run_tokens_ - 1) / (kMostRuns * run_tokens_));
  Item run = all;
  run.state_row = state_rows_;
  int64_t seen = 0;
  for (int64_t end = tokens; !pages.empty(); end += tokens) {
    std::size_t count = 0;
    for (; count < pages.size() && seen < end; ++count) seen += pages[count].tokens;
    if (count == 0) continue;
    run.pages = pages.first(count);
    items_.push_back(run);
    run.first_index += indexed_tokens(run.pages);
    run.state_row += all.tokens * group_;
    pages = pages.subspan(count);
  }
}

int64_t PagedAttention::scratch_values() const {
  return max_rows_ * (2 * options_.head_dim + 2) + score_values_ + tile_tokens_ * options_.head_dim +
         kFewRows * store_.widest_coordinates() + store_.codec_scratch();
}

void PagedAttention::reserve() {
  const int64_t bytes = scratch_values() * pool_.threads() * int64_t{sizeof(float)};
  if (scratch_.bytes() < bytes) {
    scratch_ = Buffer();
    scratch_ = Buffer(backend_, bytes, "attention workspace");
  }
  const int64_t state_bytes = state_rows_ * (options_.head_dim + 2) * int64_t{sizeof(float)};
  if (states_.bytes() < state_bytes) {
    const int64_t grown = std::max(state_bytes, 2 * states_.bytes());
    states_ = Buffer();
    states_ = Buffer(backend_, grown, "attention workspace");
  }
  const int64_t final_bytes =
      observing_ ? 2 * rows_ * options_.kv_heads * group_ * int64_t{sizeof(float)} : 0;
  if (finals_.bytes() < final_bytes) {
    finals_ = Buffer();
    finals_ = Buffer(backend_, final_bytes, "attention workspace");
  }
}

PagedAttention::Scratch PagedAttention::scratch(int worker) const {
  const int64_t dim = options_.head_dim;
  Scratch s;
  s.queries = reinterpret_cast<float*>(scratch_.data()) + worker * scratch_values();
  s.turned = s.queries + max_rows_ * dim;
  s.max = s.turned + max_rows_ * dim;
  s.sum = s.max + max_rows_;
  s.scores = s.sum + max_rows_;
  s.tile = s.scores + score_values_;
  s.coordinates = s.tile + tile_tokens_ * dim;
  s.codec = s.coordinates + kFewRows * store_.widest_coordinates();
  return s;
}

PartialState PagedAttention::states(int64_t row, int64_t rows) const {
  const int64_t dim = options_.head_dim;
  float* values = reinterpret_cast<float*>(states_.data());
  float* max = values + state_rows_ * dim;
  return {MatView<float>(values + row * dim, rows, dim), max + row, max + state_rows_ + row};
}

MatView<float> PagedAttention::gather(const Item& item, MatView<const float> q, float* target) const {
  const int64_t dim = options_.head_dim;
  const MatView<float> rows(target, item.tokens * group_, dim);
  for (int64_t t = 0; t < item.tokens; ++t) {
    const float* source = q.row(item.of->span.first_row + item.first_token + t) + item.kv_head * group_ * dim;
    float* row = rows.row(t * group_);
    for (int64_t i = 0; i < group_ * dim; ++i) row[i] = source[i] * options_.scale;
    // Page-relative keys of a tile are turned to their positions; a run turns the queries for each page.
    if (options_.key_basis != KeyBasis::kPageRelative || item.state_row == kTiled)
      turns_.rotate(rows.row_range(t * group_, group_), item.position() + t - item.lost_tokens, 0);
  }
  return rows;
}

// Finishes the state into `rows` (scratch) and copies to the output's layout.
void PagedAttention::scatter(const Item& item, const PartialState& state, float* rows,
                             MatView<float> out) const {
  const int64_t dim = options_.head_dim;
  finish(state, MatView<float>(rows, state.values.rows, dim));
  if (observing_) {
    const Finals finals = this->finals(item);
    std::copy_n(state.max, state.values.rows, finals.max);
    std::copy_n(state.sum, state.values.rows, finals.sum);
  }
  for (int64_t t = 0; t < item.tokens; ++t)
    std::copy_n(rows + t * group_ * dim, group_ * dim,
                out.row(item.of->span.first_row + item.first_token + t) + item.kv_head * group_ * dim);
}

// Hides keys after the query; tokens of a page with gaps are all in the past, and may stand for several.
void PagedAttention::mask(const Item& item, const PageRef& ref, MatView<float> scores) const {
  if (ref.where != kNoSide) {
    const PagePlaces places(store_, ref);
    if (!places.biased()) return;
    for (int64_t r = 0; r < scores.rows; ++r)
      for (int64_t t = 0; t < scores.cols; ++t) scores.at(r, t) += places.bias(t);
    return;
  }
  for (int64_t t = 0; t < item.tokens; ++t) {
    const int64_t seen = std::clamp<int64_t>(item.position() + t + 1 - ref.start, 0, scores.cols);
    if (seen == scores.cols) continue;
    for (int64_t g = 0; g < group_; ++g)
      std::fill(scores.row(t * group_ + g) + seen, scores.row(t * group_ + g) + scores.cols,
                -std::numeric_limits<float>::infinity());
  }
}

// The scores of a run's pages, from the keys as they are stored. Pages of one codec share the projection of
// the queries.
void PagedAttention::run_scores(const Item& item, MatView<const float> queries, const Scratch& s,
                                MatView<float> scores) const {
  const bool turn_keys = turns_.rotates() && options_.key_basis == KeyBasis::kPlain;
  const bool turn_queries = turns_.rotates() && options_.key_basis == KeyBasis::kPageRelative;
  const SideCodec* projected = nullptr;
  MatView<const float> projection;
  int64_t column = 0;
  int64_t index = item.first_index;
  for (std::size_t i = 0; i < item.pages.size(); ++i) {
    const PageRef& ref = item.pages[i];
    const MatView<float> of_page = scores.col_range(column, ref.tokens);
    column += ref.tokens;
    const SideData data = side_data(item.pages, i, Side::kKey);
    if (turn_keys) {
      fetch(data.ahead, store_.bytes(ref.k));
      dense_scores(queries, decode_keys({&ref, 1}, index, s).data, DType::kF32, of_page);
      index += indexed_tokens({&ref, 1});
    } else {
      const SideCodec& codec = store_.codec(ref.k);
      MatView<const float> asked = turn_queries ? turned_queries(item, ref, queries, s.turned) : queries;
      if (codec.has_coordinates()) {
        if (projected != &codec || turn_queries) {
          const MatView<float> into(s.coordinates, asked.rows, codec.coordinates(options_.head_dim));
          codec.project(asked, into);
          projection = into;
          projected = &codec;
        }
        asked = projection;
      }
      codec.scores(asked, data, s.codec, of_page);
    }
    mask(item, ref, of_page);
  }
}

// Queries counter-rotated by the page's start.
MatView<const float> PagedAttention::turned_queries(const Item& item, const PageRef& ref,
                                                    MatView<const float> queries, float* target) const {
  const MatView<float> turned(target, queries.rows, queries.cols);
  std::copy_n(queries.data, queries.rows * queries.cols, turned.data);
  // A query before the page sees none of its keys, however it is turned.
  for (int64_t t = std::max<int64_t>(0, ref.start - item.position()); t < item.tokens; ++t)
    turns_.rotate(turned.row_range(t * group_, group_), item.position() + t - ref.start, 0);
  return turned;
}

// Adds the run's weighted values. Pages of one codec with coordinates of its own are summed there and lifted
// together.
void PagedAttention::run_values(const Item& item, MatView<float> weights, const Scratch& s,
                                MatView<float> out) const {
  const SideCodec* summed = nullptr;
  MatView<float> sum;
  const auto lift = [&] {
    if (summed) summed->lift(sum, out);
    summed = nullptr;
  };
  int64_t column = 0;
  for (std::size_t i = 0; i < item.pages.size(); ++i) {
    const PageRef& ref = item.pages[i];
    const SideData data = side_data(item.pages, i, Side::kValue);
    const SideCodec& codec = store_.codec(ref.v);
    const MatView<float> of_page = weights.col_range(column, ref.tokens);
    column += ref.tokens;
    if (!codec.has_coordinates()) {
      codec.accumulate(of_page, data, s.codec, out);
      continue;
    }
    if (summed != &codec) {
      lift();
      summed = &codec;
      sum = MatView<float>(s.coordinates, out.rows, codec.coordinates(options_.head_dim));
      std::fill_n(sum.data, sum.rows * sum.cols, 0.0f);
    }
    codec.accumulate(of_page, data, s.codec, sum);
  }
  lift();
}

SideData PagedAttention::side_data(std::span<const PageRef> pages, std::size_t at, Side side) const {
  const SideId id = side_of(pages[at], side);
  SideData data = store_.data(id);
  const int64_t bytes = std::max<int64_t>(store_.bytes(id), 1);
  const std::size_t ahead = at + static_cast<std::size_t>(std::max<int64_t>(1, kFetchBytes / bytes));
  if (ahead >= pages.size()) return data;
  const SideId next = side_of(pages[ahead], side);
  if (&store_.codec(next) == &store_.codec(id)) data.ahead = store_.data(next).payload;
  return data;
}

void PagedAttention::attend_run(const Item& item, MatView<const float> q, int worker) const {
  // Pages that none of the run told of; what comes before their use is short.
  const auto fetch_first = [&](std::span<const PageRef> pages, Side side) {
    const SideId id = side_of(pages.front(), side);
    fetch(store_.data(id).payload, store_.bytes(id));
  };
  fetch_first(item.pages, Side::kKey);
  const Scratch s = scratch(worker);
  const MatView<float> queries = gather(item, q, s.queries);
  const PartialState state = states(item.state_row, queries.rows);
  clear(state);
  Item part = item;
  for (auto pages = item.pages; !pages.empty(); pages = pages.subspan(part.pages.size())) {
    part.pages = front_run(pages, run_tokens_);
    const MatView<float> scores(s.scores, queries.rows, total_tokens(part.pages), run_tokens_);
    run_scores(part, queries, s, scores);
    fetch_first(part.pages, Side::kValue);
    softmax_update(scores, state);
    run_values(part, scores, s, state.values);
    part.first_index += indexed_tokens(part.pages);
  }
}

// index: of the page's first token, where positions are relative to the cache.
void PagedAttention::turn_plain_keys(const PageRef& ref, int64_t index, MatView<float> keys) const {
  if (ref.where == kNoSide) return turns_.rotate(keys, cache_relative() ? index : ref.start, 1);
  const PagePlaces places(store_, ref);
  for (int64_t t = 0; t < ref.tokens; ++t) {
    if (!cache_relative()) {
      turns_.rotate(keys.row_range(t, 1), places.position(t), 0);
    } else if (places.bias(t) != -std::numeric_limits<float>::infinity()) {
      turns_.rotate(keys.row_range(t, 1), index++, 0);
    }
  }
}

MatView<float> PagedAttention::decode_keys(std::span<const PageRef> pages, int64_t first_index,
                                           const Scratch& s) const {
  const MatView<float> rows(s.tile, total_tokens(pages), options_.head_dim);
  int64_t row = 0;
  int64_t index = first_index;
  for (const PageRef& ref : pages) {
    const MatView<float> keys = rows.row_range(row, ref.tokens);
    store_.codec(ref.k).decode(store_.data(ref.k), s.codec, keys);
    if (options_.key_basis == KeyBasis::kPageRelative) turns_.rotate(keys, ref.start, 0);
    if (options_.key_basis == KeyBasis::kPlain && turns_.rotates()) turn_plain_keys(ref, index, keys);
    row += ref.tokens;
    index += indexed_tokens({&ref, 1});
  }
  return rows;
}

MatView<float> PagedAttention::decode_values(std::span<const PageRef> pages, const Scratch& s) const {
  const MatView<float> rows(s.tile, total_tokens(pages), options_.head_dim);
  int64_t row = 0;
  for (const PageRef& ref : pages) {
    store_.codec(ref.v).decode(store_.data(ref.v), s.codec, rows.row_range(row, ref.tokens));
    row += ref.tokens;
  }
  return rows;
}

void PagedAttention::attend_tiled(const Item& item, MatView<const float> q, MatView<float> out,
                                  int worker) const {
  const Scratch s = scratch(worker);
  const MatView<float> queries = gather(item, q, s.queries);
  const PartialState state{MatView<float>(s.turned, queries.rows, queries.cols), s.max, s.sum};
  clear(state);
  const int64_t last = item.position() + item.tokens - 1;
  auto pages = item.pages;
  int64_t index = item.first_index;
  while (!pages.empty() && pages.front().start <= last) {
    const auto run = front_run(pages, tile_tokens_);
    pages = pages.subspan(run.size());
    const MatView<float> keys = decode_keys(run, index, s);
    index += indexed_tokens(run);
    const MatView<float> scores(s.scores, queries.rows, keys.rows, tile_tokens_);
    tile_product_transposed(queries, keys, scores);
    int64_t column = 0;
    for (const PageRef& ref : run) {
      mask(item, ref, scores.col_range(column, ref.tokens));
      column += ref.tokens;
    }
    softmax_update(scores, state);
    tile_product_add(scores, decode_values(run, s), state.values);
  }
  scatter(item, state, s.queries, out);
}

void PagedAttention::merge_runs(MatView<float> out) const {
  const Scratch s = scratch(0);
  for (std::size_t i = 0; i < items_.size();) {
    const Item& first = items_[i++];
    if (first.state_row == kTiled) continue;
    const int64_t rows = first.tokens * group_;
    const PartialState state = states(first.state_row, rows);
    while (i < items_.size() && items_[i].of == first.of && items_[i].kv_head == first.kv_head)
      merge(state, states(items_[i++].state_row, rows));
    scatter(first, state, s.queries, out);
  }
}

void PagedAttention::for_items(const std::function<void(const Item& item, int worker)>& body) const {
  const int64_t count = static_cast<int64_t>(items_.size());
  if (products_ >= kWorthThreads) {
    pool_.parallel_for(
        count, [&](int64_t index, int worker) { body(items_[static_cast<std::size_t>(index)], worker); });
  } else {
    for (const Item& item : items_) body(item, 0);
  }
}

void PagedAttention::attend(std::span<const AttentionSpan> spans, MatView<const float> q,
                            MatView<float> out) {
  plan(spans);
  reserve();
  for_items([&](const Item& item, int worker) {
    if (item.state_row == kTiled) return attend_tiled(item, q, out, worker);
    attend_run(item, q, worker);
  });
  merge_runs(out);
  if (observing_) observe(spans, q);
}

}  // namespace kva
