// Plans that put tokens of a table on other pages, as they are stored.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/check.h"
#include "runtime/kv/kv_cache.h"

namespace kva {

inline constexpr float kHiddenBias = -std::numeric_limits<float>::infinity();

struct TableAddress {
  SequenceId sequence = 0;
  int layer = 0;
  int kv_head = 0;
};

// Where the tokens of a page stand.
inline std::vector<int32_t> positions_of(const PageFacts& facts) {
  std::vector<int32_t> positions = facts.positions;
  if (facts.contiguous)
    for (int64_t t = 0; t < facts.tokens; ++t) positions.push_back(static_cast<int32_t>(facts.start + t));
  return positions;
}

inline std::vector<std::vector<int32_t>> positions_by_page(const KvCache& cache, const TableAddress& of) {
  std::vector<std::vector<int32_t>> result;
  for (int64_t page = 0; page < cache.pages(of.sequence, of.layer, of.kv_head); ++page)
    result.push_back(positions_of(cache.page({of.sequence, of.layer, of.kv_head, page, Side::kKey})));
  return result;
}

// The table's tokens at these positions, encoded by the cache's own codec.
inline NewSide side_of_tokens(const KvCache& cache, const TableAddress& of, Side side,
                              const std::vector<int32_t>& positions) {
  const int64_t dim = cache.options().head_dim;
  std::vector<float> rows;
  for (int64_t page = 0; page < cache.pages(of.sequence, of.layer, of.kv_head); ++page) {
    const PageFacts facts = cache.page({of.sequence, of.layer, of.kv_head, page, side});
    std::vector<float> decoded(static_cast<std::size_t>(facts.tokens * dim));
    cache.read_page(of.sequence, of.layer, of.kv_head, page, side,
                    MatView<float>(decoded.data(), facts.tokens, dim));
    const std::vector<int32_t> here = positions_of(facts);
    for (std::size_t t = 0; t < here.size(); ++t)
      if (std::find(positions.begin(), positions.end(), here[t]) != positions.end())
        rows.insert(rows.end(), decoded.begin() + static_cast<int64_t>(t) * dim,
                    decoded.begin() + static_cast<int64_t>(t + 1) * dim);
  }
  const auto tokens = static_cast<int64_t>(positions.size());
  KVA_CHECK(static_cast<int64_t>(rows.size()) == tokens * dim, "tokens that the table holds");
  const auto& codec = side == Side::kKey ? cache.options().k_codec : cache.options().v_codec;
  NewSide result{.codec = codec,
                 .lane = side == Side::kKey ? Lane::kKeys : Lane::kValues,
                 .tokens = tokens,
                 .width = dim,
                 .payload = std::vector<std::byte>(static_cast<std::size_t>(codec->bytes(tokens, dim)))};
  codec->encode(MatView<const float>(rows.data(), tokens, dim), {}, result.payload.data());
  return result;
}

// Adds: pages [first_page, first_page + pages) of the table become one with its tokens at these positions.
inline void add_rewrite(Plan& plan, const KvCache& cache, const TableAddress& of, int64_t first_page,
                        int64_t pages, const std::vector<int32_t>& positions,
                        const std::vector<float>& biases = {}) {
  PlanRewrite rewrite{.sequence = of.sequence,
                      .layer = of.layer,
                      .kv_head = of.kv_head,
                      .first_page = first_page,
                      .pages = pages,
                      .positions = positions,
                      .biases = biases};
  if (!positions.empty()) {
    rewrite.k = static_cast<int>(plan.sides.size());
    plan.sides.push_back(side_of_tokens(cache, of, Side::kKey, positions));
    rewrite.v = static_cast<int>(plan.sides.size());
    plan.sides.push_back(side_of_tokens(cache, of, Side::kValue, positions));
  }
  plan.rewrites.push_back(std::move(rewrite));
}

// Hides tokens of a page, its sides as they are.
inline void add_hiding(Plan& plan, const KvCache& cache, const TableAddress& of, int32_t page,
                       const std::vector<int32_t>& hidden) {
  const PageFacts k = cache.page({of.sequence, of.layer, of.kv_head, page, Side::kKey});
  const PageFacts v = cache.page({of.sequence, of.layer, of.kv_head, page, Side::kValue});
  PlanRewrite rewrite{.sequence = of.sequence,
                      .layer = of.layer,
                      .kv_head = of.kv_head,
                      .first_page = page,
                      .pages = 1,
                      .alias_k = k.side,
                      .alias_v = v.side,
                      .positions = positions_of(k)};
  for (const int32_t position : rewrite.positions)
    rewrite.biases.push_back(std::find(hidden.begin(), hidden.end(), position) != hidden.end() ? kHiddenBias
                                                                                               : 0.0f);
  plan.rewrites.push_back(rewrite);
}

inline std::vector<int32_t> range(int32_t first, int32_t end) {
  std::vector<int32_t> result;
  for (int32_t i = first; i < end; ++i) result.push_back(i);
  return result;
}

// Of a table with pages of 8 tokens, its tokens 16 to 31 on pages of other lengths, with a place for each
// token, all of them there.
inline Plan cut_elsewhere(const KvCache& cache, const TableAddress& of) {
  Plan cuts;
  add_rewrite(cuts, cache, of, 2, 2, range(16, 19));
  add_rewrite(cuts, cache, of, 4, 0, range(19, 27));
  add_rewrite(cuts, cache, of, 4, 0, range(27, 32));
  return cuts;
}

}  // namespace kva
