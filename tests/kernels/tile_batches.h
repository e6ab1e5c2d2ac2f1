// The batches that attention in tiles is tested with, on the host and on the device.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "tests/kernels/attention_batches.h"

namespace kva {

inline AttentionLimits tile_limits(int32_t group) { return {.group = group, .tile_rows = kLeastTileRows}; }

// Queries that make some weights much larger than others.
inline void sharpen(AttentionCase& c, float factor) {
  for (float& x : c.queries) x *= factor;
}

// Chunks of every length about a warp's, an item's and two items' rows, at the end of contexts about a
// tile's, in pages of lengths that tiles cut anywhere.
inline void tile_chunks(const AttentionCheck& check) {
  for (int32_t queries = 16; queries <= 130; queries += queries % 16 > 1 && queries % 16 < 14 ? 5 : 1) {
    const int32_t page_tokens = 1 + queries * 7 % 37;
    const SideKind kind = queries % 2 ? SideKind::kF16 : SideKind::kBF16;
    AttentionCase c =
        one_table(64, 1, queries + queries * 5 % 67, page_tokens, queries, {.kind = kind}, {.kind = kind});
    if (queries % 3 == 0) sharpen(c, 20.0f);
    check(c, tile_limits(1),
          std::to_string(queries) + " queries, pages of " + std::to_string(page_tokens) + " tokens");
  }
}

// Every kind that tiles take at every head dimension, for several groups.
inline void tile_kinds(const AttentionCheck& check) {
  constexpr SideKind kKinds[] = {SideKind::kF16,   SideKind::kBF16,  SideKind::kE4M3,  SideKind::kE5M2,
                                 SideKind::kBits8, SideKind::kBits4, SideKind::kBits3, SideKind::kBits2};
  for (const int64_t head_dim : {64, 80, 96, 128, 256})
    for (const int32_t group : {1, 4, 9})
      for (const SideKind kind : kKinds) {
        if (group == 9 && head_dim != 80) continue;  // lanes of the host are slow
        if (group == 4 && head_dim == 256) continue;
        const int32_t queries = group == 1 ? 17 : 5;
        AttentionCase c =
            one_table(head_dim, group, queries + 75, 24, queries, {.kind = kind}, {.kind = kind});
        check(c, tile_limits(group),
              "kind " + std::to_string(static_cast<int>(kind)) + ", head_dim " + std::to_string(head_dim) +
                  ", group " + std::to_string(group));
      }
}

inline void tile_keys_by_channel(const AttentionCheck& check) {
  for (const int64_t head_dim : {64, 80, 128, 256})
    for (const int32_t page_tokens : {1, 15, 16, 17, 64, 100, 128, 256})
      for (const SideKind kind : kChannelKinds)
        for (const int64_t group : {0, 32}) {
          if (head_dim != 64 && group + page_tokens % 2 > 0) continue;
          AttentionCase c = one_table(head_dim, 2, page_tokens + 9, page_tokens, 9,
                                      {.kind = kind, .axis = ScaleAxis::kChannel, .group = group},
                                      {.kind = SideKind::kF16});
          check(c, tile_limits(2),
                "kind " + std::to_string(static_cast<int>(kind)) + ", " + std::to_string(page_tokens) +
                    " tokens a page, head_dim " + std::to_string(head_dim));
        }
}

// What scales_and_kept_numbers() has, for chunks.
inline void tile_scales_and_kept_numbers(const AttentionCheck& check) {
  std::vector<SideSpec> specs = kept_beside();
  for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
    for (const int64_t group : {0, 7, 32})
      specs.push_back({.axis = axis, .group = group, .symmetric = group == 32, .outliers = 0.013});
  packed_pages(check, specs, 100, 6, tile_limits(3));
}

// Formats mixed page by page, some of which tiles do not take; places and biases; several KV heads; tables of
// which some are too short for tiles; more pages than a block looks at at once.
inline void tile_ragged_batches(const AttentionCheck& check) {
  for (const int64_t head_dim : {64, 128}) {
    AttentionCase c;
    c.head_dim = head_dim;
    c.group = 3;
    c.kv_heads = 2;
    const std::vector<SideSpec> specs = {{.kind = SideKind::kF16},
                                         {.kind = SideKind::kBits4, .outliers = 0.02},
                                         {.kind = SideKind::kBF16},
                                         {.kind = SideKind::kE4M3},
                                         {.kind = SideKind::kBits2, .axis = ScaleAxis::kChannel},
                                         {.kind = SideKind::kF32}};
    int32_t batch_row = 0;
    for (const int32_t queries : {1, 5, 6, 29}) {
      for (int32_t head = 0; head < 2; ++head) {
        AttentionTable table{.first_page = static_cast<int32_t>(c.pages.size()),
                             .kv_head = head,
                             .batch_row = batch_row,
                             .tokens = queries};
        int32_t end = 0;
        for (int32_t p = 0; p < 20 + head; ++p) {
          const int32_t tokens = 1 + static_cast<int32_t>(c.random() % 40);
          const bool has_places = p % 7 == 2;
          SideSpec key = specs[p < 10 ? c.random() % specs.size() : c.random() % 2];
          const SideSpec value = key;
          if (key.kind == SideKind::kBits2 && p % 2) key.kind = SideKind::kBits2ByChannel;
          c.add_page(tokens, end, key, value, has_places);
          end += tokens + (has_places ? 9 : 0);
        }
        table.page_count = static_cast<int32_t>(c.pages.size()) - table.first_page;
        table.position = std::max(0, end - queries);
        c.tables.push_back(table);
      }
      batch_row += queries;
    }
    c.queries = c.draw_rows(batch_row * c.query_stride());
    AttentionLimits limits = tile_limits(3);
    check(c, limits, "mixed tiles");
    limits.item_tokens = 32;
    check(c, limits, "mixed tiles, short runs");
  }
  // Windows of 64 pages that end within a tile, whose first page has been read in part.
  for (const SideKind kind : {SideKind::kF16, SideKind::kBits4}) {
    AttentionCase c;
    c.group = 2;
    int32_t end = 0;
    for (int32_t page = 0; page < 150; ++page) {
      const int32_t tokens = 1 + static_cast<int32_t>(c.random() % 4);
      c.add_page(tokens, end, {.kind = kind}, {.kind = kind}, false);
      end += tokens;
    }
    c.tables = {{.page_count = 150, .tokens = 20, .position = end - 20}};
    c.queries = c.draw_rows(20 * c.query_stride());
    check(c, tile_limits(2), "many short pages");
  }
  for (const int64_t head_dim : {64, 256}) {
    AttentionCase c = one_table(head_dim, 2, 100, 1, 20, {.kind = SideKind::kF16}, {.kind = SideKind::kF16});
    check(c, tile_limits(2), "pages of one token");
  }
}

// Sides that are stored turned: queries come turned, and sums are turned back.
inline void tile_turned_sides(const AttentionCheck& check) {
  for (const int64_t head_dim : {64, 128})
    for (const SideKind kind : {SideKind::kF16, SideKind::kBits4, SideKind::kBits8}) {
      AttentionCase c;
      c.head_dim = head_dim;
      c.group = 2;
      for (int32_t page = 0; page < 5; ++page) {
        HostSide keys = make_turned_side(c.draw_rows(32 * head_dim), head_dim, {.kind = kind}, c.random());
        HostSide values =
            page % 2 ? make_side(c.draw_rows(32 * head_dim), head_dim, {.kind = kind}, c.random())
                     : make_turned_side(c.draw_rows(32 * head_dim), head_dim, {.kind = kind}, c.random());
        c.add_sides(32, page * 32, std::move(keys), std::move(values), false);
      }
      c.tables = {{.page_count = 5, .tokens = 35, .position = 125}};
      c.queries = c.draw_rows(35 * c.query_stride());
      check(c, tile_limits(2),
            "turned, kind " + std::to_string(static_cast<int>(kind)) + ", head_dim " +
                std::to_string(head_dim));
    }
}

inline void for_tile_cases(const AttentionCheck& check) {
  tile_chunks(check);
  tile_kinds(check);
  tile_keys_by_channel(check);
  tile_scales_and_kept_numbers(check);
  tile_ragged_batches(check);
  tile_turned_sides(check);
}

}  // namespace kva
