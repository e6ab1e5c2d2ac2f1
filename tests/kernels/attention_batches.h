// The batches that attention's device kernels are tested with, on the host and on the device.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/attention_case.h"
#include "tests/kernels/device_shared_sides.h"

namespace kva {

// Is given a batch, its limits, and what it is. The batch's addresses are not settled yet.
using AttentionCheck = std::function<void(AttentionCase&, const AttentionLimits&, const std::string& what)>;

// One table of `tokens` tokens in pages of page_tokens, all in one format, for `queries` last tokens.
inline AttentionCase one_table(int64_t head_dim, int32_t group, int32_t tokens, int32_t page_tokens,
                               int32_t queries, const SideSpec& key, const SideSpec& value) {
  AttentionCase c;
  c.head_dim = head_dim;
  c.group = group;
  for (int32_t start = 0; start < tokens; start += page_tokens)
    c.add_page(std::min(page_tokens, tokens - start), start, key, value, false);
  c.tables.push_back(
      {.page_count = static_cast<int32_t>(c.pages.size()), .tokens = queries, .position = tokens - queries});
  c.queries = c.draw_rows(queries * c.query_stride());
  return c;
}

inline constexpr SideKind kTokenKinds[] = {SideKind::kF32,   SideKind::kF16,   SideKind::kBF16,
                                           SideKind::kE4M3,  SideKind::kE5M2,  SideKind::kBits8,
                                           SideKind::kBits4, SideKind::kBits3, SideKind::kBits2};
inline constexpr SideKind kChannelKinds[] = {SideKind::kBits8ByChannel, SideKind::kBits4ByChannel,
                                             SideKind::kBits3ByChannel, SideKind::kBits2ByChannel};

inline void awkward_sizes(const AttentionCheck& check) {
  for (const int64_t head_dim : {64, 80, 128})
    for (const int32_t group : {1, 9})
      for (const int32_t tokens : {1, 15, 16, 17, 33})
        for (const SideKind kind : kTokenKinds) {
          AttentionCase c = one_table(head_dim, group, tokens, 16, 1, {.kind = kind}, {.kind = kind});
          check(c, {.group = group, .item_tokens = 16},
                "kind " + std::to_string(static_cast<int>(kind)) + ", head_dim " + std::to_string(head_dim) +
                    ", " + std::to_string(tokens) + " tokens");
        }
}

inline void odd_head_sizes(const AttentionCheck& check) {
  for (const int64_t head_dim : {8, 16, 24, 96, 192, 256})
    for (const SideKind kind : kTokenKinds) {
      AttentionCase c = one_table(head_dim, 2, 40, 24, 1, {.kind = kind}, {.kind = kind});
      check(c, {.group = 2}, "head_dim " + std::to_string(head_dim));
    }
}

// Pages of every length that narrow items read, and of others between them; more query rows than an item has;
// gaps and biases; queries that see a part of a page. kept: beside the codes of both sides; its axis is that
// of the keys, where those are of channels.
inline void narrow_items_of(const AttentionCheck& check, SideKind kind, SideKind value_kind, int64_t head_dim,
                            const SideSpec& kept) {
  AttentionCase c;
  c.head_dim = head_dim;
  c.group = head_dim == 80 ? 9 : 3;
  const bool by_channel = is_by_channel(kind);
  int32_t end = 0;
  for (const int32_t tokens : {16, 8, 24, 1, 32, 15, 64, 40, 128, 33, 72, 16, 16, 16}) {
    SideSpec key = kept, value = kept;
    key.kind = kind;
    if (!by_channel) key.axis = ScaleAxis::kToken;
    value.axis = ScaleAxis::kToken;
    key.symmetric = tokens == 32;
    value.kind = value_kind;
    value.symmetric = tokens == 64;
    c.add_page(tokens, end, key, value, tokens == 40);
    end += tokens;
  }
  const auto pages = static_cast<int32_t>(c.pages.size());
  c.tables = {{.page_count = pages, .tokens = 4, .position = end - 4},
              {.page_count = pages - 4, .batch_row = 4, .tokens = 1, .position = 400}};
  c.queries = c.draw_rows(5 * c.query_stride());
  for (float& x : c.queries) x *= 1e-3f * static_cast<float>(1 + c.random() % 3000);
  const AttentionLimits limits{.group = c.group, .item_tokens = 250};
  c.settle();
  KVA_CHECK(has_narrow_items(c, limits), "pages that narrow items read");
  check(c, limits,
        "narrow items, kinds " + std::to_string(static_cast<int>(kind)) + " and " +
            std::to_string(static_cast<int>(value_kind)) + ", head_dim " + std::to_string(head_dim));
}

inline constexpr SideKind kNarrowKinds[] = {SideKind::kF16,
                                            SideKind::kBF16,
                                            SideKind::kE4M3,
                                            SideKind::kE5M2,
                                            SideKind::kBits8,
                                            SideKind::kBits4,
                                            SideKind::kBits3,
                                            SideKind::kBits2,
                                            SideKind::kBits8ByChannel,
                                            SideKind::kBits4ByChannel,
                                            SideKind::kBits3ByChannel,
                                            SideKind::kBits2ByChannel};

inline SideKind of_tokens(SideKind kind) {
  return is_by_channel(kind) ? static_cast<SideKind>(static_cast<int>(kind) - 4) : kind;
}

inline void narrow_items(const AttentionCheck& check) {
  for (const int64_t head_dim : {64, 80, 96, 128, 256})
    for (const SideKind kind : kNarrowKinds)
      for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
        if (is_by_channel(kind) || axis == ScaleAxis::kToken)
          narrow_items_of(check, kind, of_tokens(kind), head_dim, {.axis = axis});
}

// The same of pages that keep numbers: few outliers, many, whole channels.
inline void narrow_items_with_kept(const AttentionCheck& check) {
  for (const SideKind kind : kNarrowKinds) {
    if (!is_packed(kind)) continue;
    narrow_items_of(check, kind, of_tokens(kind), 64, {.outliers = 0.2});
    narrow_items_of(check, kind, of_tokens(kind), 80,
                    {.axis = ScaleAxis::kChannel, .outliers = 0.02, .dense_channels = 2});
    narrow_items_of(check, kind, of_tokens(kind), 128, {.axis = ScaleAxis::kChannel, .outliers = 0.01});
  }
}

// The same of sides of other bits each.
inline void narrow_items_of_mixed_sides(const AttentionCheck& check) {
  for (const SideKind key : kNarrowKinds)
    for (const SideKind value :
         {SideKind::kF16, SideKind::kBits8, SideKind::kBits4, SideKind::kBits3, SideKind::kBits2})
      if (mixes_narrow(key) && !are_alike(key, value)) {
        narrow_items_of(check, key, value, 64, {});
        narrow_items_of(check, key, value, 128, {.axis = ScaleAxis::kChannel, .outliers = 0.01});
      }
}

inline void keys_by_channel(const AttentionCheck& check) {
  for (const int64_t head_dim : {64, 80, 128})
    for (const int32_t page_tokens : {1, 15, 16, 17, 64, 100, 128, 256})
      for (const SideKind kind : kChannelKinds)
        for (const int64_t group : {0, 32})
          for (const ScaleAxis axis : {ScaleAxis::kChannel, ScaleAxis::kToken}) {
            AttentionCase c =
                one_table(head_dim, 3, page_tokens + 1, page_tokens, 1,
                          {.kind = kind, .axis = axis, .group = group}, {.kind = SideKind::kF16});
            check(c, {.group = 3},
                  "kind " + std::to_string(static_cast<int>(kind)) + ", " + std::to_string(page_tokens) +
                      " tokens a page");
          }
}

// Pages of 8, 4, 3 and 2 bits with each of these specs on both sides, keys by token and by channel: for the
// last `queries` of so many tokens.
inline void packed_pages(const AttentionCheck& check, const std::vector<SideSpec>& specs, int32_t tokens,
                         int32_t queries, const AttentionLimits& limits) {
  for (const SideSpec& spec : specs)
    for (const SideKind kind : {SideKind::kBits8, SideKind::kBits4, SideKind::kBits3, SideKind::kBits2})
      for (const bool by_channel : {false, true}) {
        SideSpec key = spec, value = spec;
        value.kind = kind;
        key.kind = static_cast<SideKind>(static_cast<int>(kind) + (by_channel ? 4 : 0));
        AttentionCase c = one_table(80, limits.group, tokens, 32, queries, key, value);
        check(c, limits, std::to_string(side_bits(kind)) + (by_channel ? " bits by channel" : " bits"));
      }
}

// What pages keep beside their codes.
inline std::vector<SideSpec> kept_beside() {
  return {{.outliers = 0.05, .dense_channels = 3, .factors = true},
          {.axis = ScaleAxis::kChannel, .dense_channels = 1},
          {.symmetric = true, .factors = true},
          {.outliers = 1.0}};
}

// Scales by token, by channel and by group; symmetric; outliers, dense channels, factors; in keys and values.
inline void scales_and_kept_numbers(const AttentionCheck& check) {
  std::vector<SideSpec> specs = kept_beside();
  for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
    for (const int64_t group : {0, 7, 16, 32})
      for (const bool symmetric : {false, true})
        specs.push_back({.axis = axis, .group = group, .symmetric = symmetric, .outliers = 0.013});
  packed_pages(check, specs, 50, 1, {.group = 3});
}

// Formats mixed page by page, pages with places and biases, a ragged batch with chunks, several KV heads.
inline void ragged_batches(const AttentionCheck& check) {
  for (const int64_t head_dim : {64, 128}) {
    AttentionCase c;
    c.head_dim = head_dim;
    c.group = 3;
    c.kv_heads = 2;
    const std::vector<SideSpec> specs = {{.kind = SideKind::kF16},
                                         {.kind = SideKind::kBits4, .outliers = 0.02},
                                         {.kind = SideKind::kE4M3},
                                         {.kind = SideKind::kBits2, .axis = ScaleAxis::kChannel},
                                         {.kind = SideKind::kF32}};
    int32_t batch_row = 0;
    for (const int32_t queries : {1, 5, 17}) {
      for (int32_t head = 0; head < 2; ++head) {
        AttentionTable table{.first_page = static_cast<int32_t>(c.pages.size()),
                             .kv_head = head,
                             .batch_row = batch_row,
                             .tokens = queries};
        int32_t end = 0;
        for (int32_t p = 0; p < 9 + head; ++p) {
          const int32_t tokens = 1 + static_cast<int32_t>(c.random() % 40);
          const bool has_places = p < 3;
          const std::size_t kind = c.random() % specs.size();
          SideSpec key = specs[kind];
          if (key.kind == SideKind::kBits2 && p % 2) key.kind = SideKind::kBits2ByChannel;
          c.add_page(tokens, end, key, specs[(kind + static_cast<std::size_t>(p)) % specs.size()],
                     has_places);
          end += tokens + (has_places ? 9 : 0);
        }
        table.page_count = static_cast<int32_t>(c.pages.size()) - table.first_page;
        table.position = std::max(0, end - queries);
        c.tables.push_back(table);
      }
      batch_row += queries;
    }
    c.queries = c.draw_rows(batch_row * c.query_stride());
    check(c, {.group = 3, .item_tokens = 32}, "mixed");
    check(c, {.group = 3, .item_tokens = 32, .most_runs = 2}, "mixed, long runs");
  }
}

inline void scaled_sides(const AttentionCheck& check) {
  for (const int64_t head_dim : {64, 80, 128})
    for (const int32_t group : {1, 9})
      for (const int32_t tokens : {1, 15, 16, 17})
        for (const SideSpec& spec : {SideSpec{.kind = SideKind::kF16}, SideSpec{.kind = SideKind::kF32},
                                     SideSpec{.kind = SideKind::kBits8},
                                     SideSpec{.kind = SideKind::kBits4, .outliers = 0.02, .factors = true},
                                     SideSpec{.kind = SideKind::kBits3, .group = 16}}) {
          if (group == 9 && head_dim != 80) continue;  // lanes of the host are slow
          AttentionCase c;
          c.head_dim = head_dim;
          c.group = group;
          SideSpec key = spec;
          if (spec.kind == SideKind::kBits4) key.kind = SideKind::kBits4ByChannel;
          const auto side = [&](const SideSpec& of, int32_t retained) {
            return make_scaled_side(c.draw_rows(tokens * head_dim), head_dim, of, retained, c.random());
          };
          const auto plain = [&] {
            return make_side(c.draw_rows(tokens * head_dim), head_dim, {.kind = SideKind::kF16}, 1);
          };
          c.add_sides(tokens, 0, plain(), side(spec, 1), true);
          c.add_sides(tokens, tokens, side(key, tokens), plain(), false);
          c.add_sides(tokens, 2 * tokens, side(key, tokens / 5), side(spec, 0), false);
          c.tables = {{.page_count = 3, .tokens = 2, .position = 3 * tokens - 2}};
          c.queries = c.draw_rows(2 * c.query_stride());
          check(c, {.group = group, .item_tokens = 16},
                "scaled kind " + std::to_string(static_cast<int>(spec.kind)) + ", head_dim " +
                    std::to_string(head_dim) + ", " + std::to_string(tokens) + " tokens");
        }
}

// Coefficients of few numbers and of more than a head has, by units and not, dense and packed.
inline void sides_on_a_basis(const AttentionCheck& check) {
  for (const int64_t head_dim : {64, 80, 128})
    for (const int32_t group : {1, 9})
      for (const int32_t tokens : {1, 15, 16, 17})
        for (const int64_t rank : {1, 5, 8, 33, 300}) {
          // Lanes of the host are slow: not all of them with all.
          if (rank == 300 && (group > 1 || head_dim == 64)) continue;
          if (group == 9 && head_dim != 80) continue;
          AttentionCase c;
          c.head_dim = head_dim;
          c.group = group;
          const std::vector<float> key_basis = make_basis(rank, head_dim, 1);
          const std::vector<float> value_basis = make_basis(rank, head_dim, 2);
          const auto add = [&](int32_t start, const SideSpec& key, const SideSpec& value) {
            HostSide keys = make_basis_side(c.draw_rows(tokens * rank), key_basis, head_dim, 1, key,
                                            rank == 8 && start == 0, c.random());
            c.add_sides(tokens, start, std::move(keys),
                        make_basis_side(c.draw_rows(tokens * rank), value_basis, head_dim, 2, value,
                                        rank == 1 && start == 0, c.random()),
                        start == tokens);
          };
          add(0, {.kind = SideKind::kF16}, {.kind = SideKind::kF16});
          add(tokens, {.kind = SideKind::kBits4, .outliers = 0.1},
              {.kind = SideKind::kBits8, .factors = true});
          add(2 * tokens, {.kind = SideKind::kBits3ByChannel, .axis = ScaleAxis::kChannel, .group = 16},
              {.kind = SideKind::kBits2, .outliers = 0.1, .dense_channels = rank > 1 ? 1 : 0});
          add(3 * tokens, {.kind = SideKind::kF32}, {.kind = SideKind::kE4M3});
          c.add_page(tokens, 4 * tokens, {.kind = SideKind::kF16}, {.kind = SideKind::kBits4}, false);
          c.tables = {{.page_count = 5, .tokens = 2, .position = 5 * tokens - 2}};
          c.queries = c.draw_rows(2 * c.query_stride());
          check(c, {.group = group, .item_tokens = 32},
                "rank " + std::to_string(rank) + ", head_dim " + std::to_string(head_dim) + ", " +
                    std::to_string(tokens) + " tokens");
        }
}

// Tables with bases of their own, turned sides and plain ones, chunks of queries.
inline void ragged_coordinates(const AttentionCheck& check) {
  for (const int64_t head_dim : {64, 128}) {
    AttentionCase c;
    c.head_dim = head_dim;
    c.group = 3;
    c.kv_heads = 2;
    const std::vector<std::vector<float>> bases = {make_basis(24, head_dim, 1), make_basis(33, head_dim, 2),
                                                   make_basis(16, head_dim, 3)};
    int32_t batch_row = 0;
    for (const int32_t queries : {1, 5, 17}) {
      for (int32_t head = 0; head < 2; ++head) {
        AttentionTable table{.first_page = static_cast<int32_t>(c.pages.size()),
                             .kv_head = head,
                             .batch_row = batch_row,
                             .tokens = queries};
        int32_t end = 0;
        for (int32_t p = 0; p < 12 + head; ++p) {
          const int32_t tokens = 1 + static_cast<int32_t>(c.random() % 20);
          const auto side = [&](unsigned drawn) {
            const std::size_t which = drawn % 6;
            const SideSpec spec{.kind = drawn % 7 < 4 ? SideKind::kF16 : SideKind::kBits4};
            if (which == 4)
              return make_scaled_side(c.draw_rows(tokens * head_dim), head_dim, spec, tokens / 3, c.random());
            if (which == 5)
              return make_turned_side(c.draw_rows(tokens * head_dim), head_dim, spec, c.random());
            if (which == 3) return make_side(c.draw_rows(tokens * head_dim), head_dim, spec, c.random());
            return make_basis_side(c.draw_rows(tokens * std::ssize(bases[which]) / head_dim), bases[which],
                                   head_dim, static_cast<uint16_t>(which + 1), spec,
                                   which == 2 && drawn % 2 == 0, c.random());
          };
          HostSide keys = side(c.random());
          c.add_sides(tokens, end, std::move(keys), side(c.random()), false);
          end += tokens;
        }
        table.page_count = static_cast<int32_t>(c.pages.size()) - table.first_page;
        table.position = std::max(0, end - queries);
        c.tables.push_back(table);
      }
      batch_row += queries;
    }
    c.queries = c.draw_rows(batch_row * c.query_stride());
    check(c, {.group = 3, .item_tokens = 32}, "coordinates");
    check(c, {.group = 3, .item_tokens = 32, .most_runs = 1}, "coordinates, long runs");
  }
}

// Levels of two codebooks for keys and for values, by token and by channel.
inline void shared_levels(const AttentionCheck& check) {
  constexpr SideKind kValueKinds[] = {SideKind::kLevels8, SideKind::kLevels4, SideKind::kLevels3,
                                      SideKind::kLevels2};
  for (const int64_t head_dim : {64, 80, 128})
    for (const int32_t group : {1, 9})
      for (const int32_t tokens : {1, 15, 16, 17})
        for (const SideKind kind : kValueKinds)
          for (const bool by_channel : {false, true})
            for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel}) {
              AttentionCase c;
              c.head_dim = head_dim;
              c.group = group;
              SideSpec value{.kind = kind, .axis = axis, .symmetric = group > 1 && axis == ScaleAxis::kToken};
              if (!value.symmetric) value.outliers = 0.03;
              SideSpec key = value;
              if (by_channel) key.kind = static_cast<SideKind>(static_cast<int>(kind) + 4);
              for (int32_t page = 0; page < 2; ++page) {
                HostSide keys = make_levels_side(c.draw_rows(tokens * head_dim), head_dim, key, c.random());
                c.add_sides(tokens, page * tokens, std::move(keys),
                            make_levels_side(c.draw_rows(tokens * head_dim), head_dim, value, c.random()),
                            page == 1);
              }
              c.add_page(tokens, 2 * tokens, {.kind = SideKind::kF16}, {.kind = SideKind::kBits4}, false);
              c.tables = {{.page_count = 3, .position = 3 * tokens - 1}};
              c.queries = c.draw_rows(c.query_stride());
              check(c, {.group = group},
                    "levels, kind " + std::to_string(static_cast<int>(key.kind)) + ", head_dim " +
                        std::to_string(head_dim) + ", " + std::to_string(tokens) + " tokens");
            }
}

// Parts of fewer channels than a lane takes, and of more; tables of products that fit, and such that do not.
inline void shared_centroids(const AttentionCheck& check) {
  for (const int64_t head_dim : {64, 80, 128})
    for (const int32_t group : {1, 9})
      for (const int32_t tokens : {1, 15, 16, 17})
        for (const int64_t parts : {int64_t{1}, int64_t{16}, head_dim})
          for (const int bits : {2, 3, 4, 8}) {
            AttentionCase c;
            c.head_dim = head_dim;
            c.group = group;
            for (int32_t page = 0; page < 2; ++page)
              c.add_sides(tokens, page * tokens,
                          make_centroids_side(tokens, head_dim, parts, bits, c.random()),
                          make_centroids_side(tokens, head_dim, parts, bits, c.random()), page == 1);
            c.tables = {{.page_count = 2, .position = 2 * tokens - 1}};
            c.queries = c.draw_rows(c.query_stride());
            check(c, {.group = group},
                  std::to_string(parts) + " parts of " + std::to_string(bits) + " bits, head_dim " +
                      std::to_string(head_dim) + ", " + std::to_string(tokens) + " tokens");
          }
}

// Fronts of f16 on both sides, not at the same token; low-rank parts; one of either and neither.
inline void sides_of_parts(const AttentionCheck& check) {
  for (const int64_t head_dim : {64, 80, 128})
    for (const int32_t group : {1, 9})
      for (const int32_t tokens : {2, 15, 16, 17})
        for (const SideKind kind : {SideKind::kBits8, SideKind::kBits4, SideKind::kBits3, SideKind::kBits2}) {
          AttentionCase c;
          c.head_dim = head_dim;
          c.group = group;
          const auto plain = [&](int32_t count, bool by_channel) {
            const auto of = static_cast<SideKind>(static_cast<int>(kind) + (by_channel ? 4 : 0));
            return make_side(c.draw_rows(count * head_dim), head_dim,
                             {.kind = of, .outliers = 0.03, .factors = !by_channel}, c.random());
          };
          c.add_sides(tokens, 0, with_front(plain(tokens - 1, true), 1, 1),
                      with_front(plain(1, false), tokens - 1, 2), false);
          c.add_sides(tokens, tokens, with_front(plain(tokens / 2, false), tokens - tokens / 2, 3),
                      plain(tokens, false), true);
          SideSpec coded{.kind = kind, .outliers = 0.03};
          const auto coded_side = [&] {
            return make_side(c.draw_rows(tokens * head_dim), head_dim, coded, c.random());
          };
          c.add_sides(tokens, 2 * tokens, with_low_rank(coded_side(), 2, 4),
                      with_low_rank(coded_side(), 1, 5), false);
          c.add_sides(tokens, 3 * tokens, plain(tokens, true), with_low_rank(coded_side(), 5, 6), false);
          c.tables = {{.page_count = 4, .tokens = 2, .position = 4 * tokens - 2}};
          c.queries = c.draw_rows(2 * c.query_stride());
          check(c, {.group = group, .item_tokens = 32},
                "parts of kind " + std::to_string(static_cast<int>(kind)) + ", head_dim " +
                    std::to_string(head_dim) + ", " + std::to_string(tokens) + " tokens");
        }
}

inline void for_attention_cases(const AttentionCheck& check) {
  shared_levels(check);
  shared_centroids(check);
  sides_of_parts(check);
  scaled_sides(check);
  sides_on_a_basis(check);
  ragged_coordinates(check);
  narrow_items(check);
  narrow_items_with_kept(check);
  narrow_items_of_mixed_sides(check);
  awkward_sizes(check);
  odd_head_sizes(check);
  keys_by_channel(check);
  scales_and_kept_numbers(check);
  ragged_batches(check);
}

}  // namespace kva
