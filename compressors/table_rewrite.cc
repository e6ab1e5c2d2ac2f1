#include "compressors/table_rewrite.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>

#include "kernels/check.h"

namespace kva {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

bool is_dense(const SideCodec& codec) { return codec.name().starts_with("dense("); }

class TableRewriter {
 public:
  TableRewriter(const KvCache& cache, SequenceId sequence, int layer, int kv_head,
                std::span<const TablePage> pages)
      : cache_(cache), at_{sequence, layer, kv_head, 0, Side::kKey}, pages_(pages) {
    for (const TablePage& page : pages) {
      at_.page = page.page;
      Sides sides;
      sides.own = true;
      for (const Side side : {Side::kKey, Side::kValue}) {
        at_.side = side;
        const PageFacts facts = cache.page(at_);
        const StoredSide stored = cache.side(facts.side);
        (side == Side::kKey ? sides.k_id : sides.v_id) = facts.side;
        const std::shared_ptr<const SideCodec> other = stored.codec->coder();
        (side == Side::kKey ? sides.k : sides.v) = other ? other : stored.codec;
        sides.own = sides.own && facts.references == 1 && stored.base == kNoSide;
      }
      sides_.push_back(std::move(sides));
    }
  }

  TableRewrite make() {
    for (std::size_t first = 0; first < pages_.size();) {
      std::size_t end = first + 1;
      while (end < pages_.size() && together(first, end)) ++end;
      add_run(first, end);
      first = end;
    }
    return std::move(result_);
  }

 private:
  struct Sides {
    SideId k_id = kNoSide;
    SideId v_id = kNoSide;
    std::shared_ptr<const SideCodec> k, v;
    bool own = false;  // no other page shares or builds on them
  };

  bool together(std::size_t a, std::size_t b) const {
    return sides_[a].own && sides_[b].own && sides_[a].k == sides_[b].k && sides_[a].v == sides_[b].v;
  }
  bool full(std::size_t i) const { return pages_[i].staying() == cache_.options().page_tokens; }

  // Pages [first, end) of one kind.
  void add_run(std::size_t first, std::size_t end) {
    int64_t wasted = 0;
    for (std::size_t i = first; i < end; ++i) wasted += pages_[i].tokens() - pages_[i].staying();
    if (!sides_[first].own || wasted < cache_.options().page_tokens) {
      for (std::size_t i = first; i < end; ++i)
        if (pages_[i].changed) mask(i);
      return;
    }
    while (full(first)) ++first;
    while (full(end - 1)) --end;
    pack(first, end);
  }

  PlanRewrite rewrite_at(std::size_t first, int64_t pages) const {
    return {.sequence = at_.sequence,
            .layer = at_.layer,
            .kv_head = at_.kv_head,
            .first_page = pages_[first].page,
            .pages = pages};
  }

  void mask(std::size_t i) {
    PlanRewrite rewrite = rewrite_at(i, 1);
    if (pages_[i].staying() > 0) {
      rewrite.alias_k = sides_[i].k_id;
      rewrite.alias_v = sides_[i].v_id;
      rewrite.positions = pages_[i].positions;
      rewrite.biases = pages_[i].biases;
      for (std::size_t t = 0; t < rewrite.biases.size(); ++t)
        if (!pages_[i].stays[t]) rewrite.biases[t] = kMasked;
    }
    result_.plan.rewrites.push_back(std::move(rewrite));
  }

  // A token that stays: its page, and its place there.
  struct Kept {
    std::size_t page = 0;
    int32_t place = 0;
  };

  // Of one side, in runs.
  std::vector<SideTokens> sources_of(std::span<const Kept> tokens, Side side) const {
    std::vector<SideTokens> runs;
    for (const Kept& token : tokens) {
      const SideId id = side == Side::kKey ? sides_[token.page].k_id : sides_[token.page].v_id;
      if (!runs.empty() && runs.back().side == id && runs.back().first + runs.back().count == token.place)
        ++runs.back().count;
      else
        runs.push_back({id, token.place, 1});
    }
    return runs;
  }

  std::vector<float> rows_of(std::span<const Kept> tokens, Side side) const {
    const int64_t dim = cache_.options().head_dim;
    std::vector<float> result, page_rows;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (i == 0 || tokens[i].page != tokens[i - 1].page) {
        const TablePage& page = pages_[tokens[i].page];
        page_rows.resize(static_cast<std::size_t>(page.tokens() * dim));
        cache_.read_page(at_.sequence, at_.layer, at_.kv_head, page.page, side,
                         MatView<float>(page_rows.data(), page.tokens(), dim));
      }
      const auto row = page_rows.begin() + tokens[i].place * dim;
      result.insert(result.end(), row, row + dim);
    }
    return result;
  }

  int add_side(Side side, int64_t position, std::span<const Kept> tokens) {
    const Sides& of = sides_[tokens.front().page];
    NewSide added{.codec = side == Side::kKey ? of.k : of.v,
                  .lane = side == Side::kKey ? Lane::kKeys : Lane::kValues,
                  .tokens = std::ssize(tokens),
                  .width = cache_.options().head_dim,
                  .sources = sources_of(tokens, side)};
    if (!cache_.codes_itself(*added.codec, added.sources)) {
      added.sources.clear();
      const std::vector<float> rows = rows_of(tokens, side);
      added.payload =
          encoded_payload({at_.layer, at_.kv_head, side}, position,
                          MatView<const float>(rows.data(), added.tokens, added.width), *added.codec, {});
    }
    result_.plan.sides.push_back(std::move(added));
    return static_cast<int>(result_.plan.sides.size()) - 1;
  }

  void pack(std::size_t first, std::size_t end) {
    std::vector<Kept> kept;
    std::vector<int32_t> positions;
    std::vector<float> biases;
    for (std::size_t i = first; i < end; ++i)
      for (std::size_t t = 0; t < pages_[i].positions.size(); ++t) {
        if (!pages_[i].stays[t]) continue;
        kept.push_back({i, static_cast<int32_t>(t)});
        positions.push_back(pages_[i].positions[t]);
        biases.push_back(pages_[i].biases[t]);
      }
    const auto total = static_cast<int64_t>(positions.size());
    if (!is_dense(*sides_[first].k) || !is_dense(*sides_[first].v)) result_.recoded_tokens += total;
    PlanRewrite rewrite = rewrite_at(first, static_cast<int64_t>(end - first));
    const int64_t behind = rewrite.first_page + rewrite.pages;
    if (total == 0) result_.plan.rewrites.push_back(rewrite);
    for (int64_t from = 0; from < total; from += cache_.options().page_tokens) {
      const int64_t count = std::min<int64_t>(cache_.options().page_tokens, total - from);
      rewrite.positions.assign(positions.begin() + from, positions.begin() + from + count);
      rewrite.biases.assign(biases.begin() + from, biases.begin() + from + count);
      const int64_t position = rewrite.positions.front();
      const std::span<const Kept> of_page(kept.data() + from, static_cast<std::size_t>(count));
      rewrite.k = add_side(Side::kKey, position, of_page);
      rewrite.v = add_side(Side::kValue, position, of_page);
      result_.plan.rewrites.push_back(rewrite);
      rewrite.first_page = behind;  // the others are inserted
      rewrite.pages = 0;
    }
  }

  const KvCache& cache_;
  PageAddress at_;
  std::span<const TablePage> pages_;
  std::vector<Sides> sides_;
  TableRewrite result_;
};

}  // namespace

int64_t TablePage::staying() const { return std::count(stays.begin(), stays.end(), char{1}); }

std::vector<TablePage> table_pages(const KvCache& cache, SequenceId sequence, int layer, int kv_head,
                                   int64_t settled) {
  std::vector<TablePage> pages;
  const int64_t count = cache.pages(sequence, layer, kv_head);
  for (int64_t i = 0; i < count; ++i) {
    const PageFacts facts = cache.page({sequence, layer, kv_head, i, Side::kKey});
    if (facts.open) break;
    TablePage page{.page = i};
    if (facts.contiguous) {
      page.positions.resize(static_cast<std::size_t>(facts.tokens));
      std::iota(page.positions.begin(), page.positions.end(), static_cast<int32_t>(facts.start));
      page.biases.assign(page.positions.size(), 0.0f);
    } else {
      page.positions.assign(facts.positions.begin(), facts.positions.end());
      page.biases.assign(facts.biases.begin(), facts.biases.end());
    }
    if (page.positions.back() >= settled) break;
    page.stays.resize(page.positions.size());
    std::transform(page.biases.begin(), page.biases.end(), page.stays.begin(),
                   [](float bias) { return static_cast<char>(bias != kMasked); });
    pages.push_back(std::move(page));
  }
  return pages;
}

TableRewrite rewrite_table(const KvCache& cache, SequenceId sequence, int layer, int kv_head,
                           std::span<const TablePage> pages) {
  return TableRewriter(cache, sequence, layer, kv_head, pages).make();
}

}  // namespace kva
