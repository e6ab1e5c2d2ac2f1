// A batch of page tables for attention's device kernels, and what attention over it is by the CPU's kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "kernels/attention.h"
#include "kernels/attention_job.h"
#include "kernels/attention_work.h"
#include "kernels/dense_rows.h"
#include "tests/kernels/device_based_sides.h"
#include "tests/kernels/device_sides.h"

namespace kva {

struct AttentionCase {
  int64_t head_dim = 64;
  int32_t group = 1;
  int32_t kv_heads = 1;
  float scale = 0.125f;
  std::vector<HostSide> keys, values;  // by page
  std::vector<std::vector<float>> biases;
  std::vector<DevicePage> pages;  // with addresses of the host; formats by page: 2 * page, 2 * page + 1
  std::vector<SideFormat> formats;
  std::vector<AttentionTable> tables;
  std::vector<float> queries;  // [batch rows, kv_heads * group * head_dim]
  std::mt19937 random{7};

  int64_t query_stride() const { return kv_heads * group * head_dim; }
  int64_t batch_rows() const { return static_cast<int64_t>(queries.size()) / query_stride(); }

  float draw() { return static_cast<float>(random() >> 8) / 8388608.0f - 1.0f; }
  std::vector<float> draw_rows(int64_t count) {
    std::vector<float> rows(static_cast<std::size_t>(count));
    for (float& x : rows) x = draw();
    return rows;
  }

  // A page at the end of the table that is being made; contiguous pages follow `start`.
  void add_page(int32_t tokens, int32_t start, const SideSpec& key, const SideSpec& value, bool has_places) {
    HostSide of_keys = make_side(draw_rows(tokens * head_dim), head_dim, key, random());
    add_sides(tokens, start, std::move(of_keys),
              make_side(draw_rows(tokens * head_dim), head_dim, value, random()), has_places);
  }
  void add_sides(int32_t tokens, int32_t start, HostSide key, HostSide value, bool has_places) {
    keys.push_back(std::move(key));
    values.push_back(std::move(value));
    biases.emplace_back();
    if (has_places)
      for (int32_t t = 0; t < tokens; ++t)
        biases.back().push_back(t % 5 == 3 ? -std::numeric_limits<float>::infinity()
                                           : std::log(static_cast<float>(1 + t % 3)));
    DevicePage page;
    page.tokens = tokens;
    page.start = start;
    page.has_places = has_places;
    page.key_format = static_cast<uint16_t>(2 * pages.size());
    page.value_format = static_cast<uint16_t>(page.key_format + 1);
    page.key_basis = keys.back().basis;
    page.value_basis = values.back().basis;
    pages.push_back(page);
    formats.push_back(keys.back().format);
    formats.push_back(values.back().format);
  }

  // Addresses of the payloads, which stay where they are from here on; and the formats of bases, behind the
  // pages' own.
  void settle() {
    formats.resize(2 * pages.size());
    const auto base_of = [this](const HostSide& side, uint16_t format) {
      if (side.format.kind != SideKind::kScaledBase) return;
      formats[format].base = static_cast<int32_t>(formats.size());
      formats.push_back(side.base_format);
    };
    for (std::size_t i = 0; i < pages.size(); ++i) {
      pages[i].keys = keys[i].payload.data();
      pages[i].values = values[i].payload.data();
      if (!keys[i].shared.empty()) formats[pages[i].key_format].shared[0] = keys[i].shared.data();
      if (!values[i].shared.empty()) formats[pages[i].value_format].shared[0] = values[i].shared.data();
      pages[i].key_base = keys[i].base.data();
      pages[i].value_base = values[i].base.data();
      base_of(keys[i], pages[i].key_format);
      base_of(values[i], pages[i].value_format);
      pages[i].biases = biases[i].empty() ? nullptr : biases[i].data();
    }
  }
};

inline bool has_narrow_items(const AttentionCase& c, const AttentionLimits& limits) {
  const AttentionPlan plan = plan_attention(c.pages, c.formats, c.tables, limits);
  return std::any_of(plan.buckets.begin(), plan.buckets.end(),
                     [](const auto& bucket) { return bucket.narrow != NarrowKind::kNone; });
}

// [batch rows, heads * head_dim], and for each number how far f32 rounding may take another order of sums;
// and how far attention in tiles may take it.
struct ExpectedAttention {
  std::vector<float> out;
  std::vector<float> bound;
  std::vector<float> tile_bound;
};

inline double magnitude_of(const HostSide& side, std::size_t number) {
  return side.magnitudes.empty() ? std::abs(double{side.numbers[number]}) : double{side.magnitudes[number]};
}

// What the rounding that kernels/tile_attention.h states does to a row of results, at most. All sizes are the
// largest of the row's tokens.
struct TileRounding {
  double products = 0.0;   // sizes of a score's products, added up
  double query_sum = 0.0;  // sizes of the query's numbers, added up
  double query_largest = 0.0;
  double key_sum = 0.0;
  double value_largest = 0.0;
  double dim = 0.0;
  double tokens = 0.0;
  bool bfloat = false;  // whether some page is bf16
  bool packed = false;

  double bound() const {
    const double split = bfloat ? 0x1p-16 : 0x1p-22;
    const double stored = packed ? 0x1p-11 : 0.0;  // and below f16's normal numbers, 2^-25
    // Of a score: both parts of a query's number, the keys', and twice as many products as numbers.
    const double score = products * (split + stored + 2.0 * dim * 0x1p-23) +
                         0x1p-38 * query_largest * key_sum + (packed ? 0x1p-25 * query_sum : 0.0);
    // Of a weight, as a share: its score and the maximum are off, differences of scores and of maxima are
    // rounded as shares of themselves, here, from tile to tile and when states are merged; so are powers, of
    // which every tile takes one more.
    const double tiles = tokens / 32.0 + 2.0;
    const double weight = 2.0 * score + 0x1p-24 * (12.0 * products + 32.0) + 0x1p-22 * (tiles + 3.0);
    // Weights are rounded once more for the product with the values, not for their sum.
    const double rounded = bfloat ? 0x1p-16 : 0x1p-11 + tokens * 0x1p-37;
    const double sums = 0x1p-23 * (3.0 * tokens + 2.0 * tiles);
    return value_largest * (2.0 * weight + rounded + stored + sums) +
           (packed ? 0x1p-25 * std::sqrt(dim) : 0.0);
  }
};

inline ExpectedAttention expected_attention(const AttentionCase& c) {
  const std::vector<float> zeros(c.queries.size());
  ExpectedAttention expected{zeros, zeros, zeros};
  const int64_t dim = c.head_dim;
  for (const AttentionTable& table : c.tables) {
    for (int32_t row = 0; row < table.tokens * c.group; ++row) {
      const int64_t at = (table.batch_row + row / c.group) * c.query_stride() +
                         (table.kv_head * c.group + row % c.group) * dim;
      std::vector<float> query(c.queries.begin() + at, c.queries.begin() + at + dim), o(query.size());
      for (float& x : query) x *= c.scale;
      float max = 0.0f, sum = 0.0f;
      const PartialState state{{o.data(), 1, dim}, &max, &sum};
      clear(state);
      int64_t tokens = 0, terms = 0;
      double products = 0.0, largest = 0.0;
      TileRounding tiles{.dim = static_cast<double>(dim)};
      for (const float x : query) {
        tiles.query_sum += std::abs(double{x});
        tiles.query_largest = std::max(tiles.query_largest, std::abs(double{x}));
      }
      for (int32_t p = table.first_page; p < table.first_page + table.page_count; ++p) {
        const auto i = static_cast<std::size_t>(p);
        const DevicePage& page = c.pages[i];
        std::vector<float> scores(static_cast<std::size_t>(page.tokens));
        const MatView<float> view(scores.data(), 1, page.tokens);
        dense_scores({query.data(), 1, dim}, c.keys[i].numbers.data(), DType::kF32, view);
        for (int32_t t = 0; t < page.tokens; ++t) {
          const auto token = static_cast<std::size_t>(t);
          if (page.biases) scores[token] += c.biases[i][token];
          if (!page.has_places && page.start + t > table.position + row / c.group)
            scores[token] = -std::numeric_limits<float>::infinity();
          double magnitude = 0.0, key_sum = 0.0;
          for (int64_t k = 0; k < dim; ++k) {
            const auto n = static_cast<std::size_t>(t * dim + k);
            magnitude += std::abs(double{query[static_cast<std::size_t>(k)]} * magnitude_of(c.keys[i], n));
            largest = std::max(largest, magnitude_of(c.values[i], n));
            key_sum += magnitude_of(c.keys[i], n);
          }
          tiles.key_sum = std::max(tiles.key_sum, key_sum);
          products = std::max(products, magnitude);
        }
        for (const SideFormat* of : {&c.keys[i].format, &c.values[i].format}) {
          tiles.bfloat |= of->kind == SideKind::kBF16;
          tiles.packed |= is_packed(of->kind);
        }
        tokens += page.tokens;
        terms = std::max({terms, c.keys[i].terms, c.values[i].terms});
        softmax_update(view, state);
        dense_accumulate(view, c.values[i].numbers.data(), DType::kF32, state.values);
      }
      finish(state, {expected.out.data() + at, 1, dim});
      // A score of dim products is off by dim roundings of their magnitudes, a weight by as much of itself
      // and by those of exp; sums of so many weights by a rounding each. On both sides. Decoding
      // code * scale + zero rounds once or twice, which counts as two more products.
      const double epsilon = 0x1p-24;
      const double relative =
          2.0 * epsilon *
          (static_cast<double>(dim + terms + 8) * products + static_cast<double>(tokens + terms) + 16.0);
      std::fill_n(expected.bound.begin() + at, dim, static_cast<float>(2.0 * relative * largest));
      tiles.products = products;
      tiles.value_largest = largest;
      tiles.tokens = static_cast<double>(tokens);
      std::fill_n(expected.tile_bound.begin() + at, dim,
                  static_cast<float>(2.0 * relative * largest + tiles.bound()));
    }
  }
  return expected;
}

}  // namespace kva
