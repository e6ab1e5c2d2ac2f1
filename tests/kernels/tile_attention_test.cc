// Attention in tiles, run thread by thread on the host, against attention over the decoded pages; and what
// goes to tiles.
#include "kernels/tile_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/kernels/attention_on_host.h"
#include "tests/kernels/tile_batches.h"

namespace kva {
namespace {

bool uses_tiles(const AttentionPlan& plan) {
  return std::any_of(plan.buckets.begin(), plan.buckets.end(),
                     [](const AttentionBucket& of) { return of.tiles != TileKind::kNone; });
}

void expect_tiles(AttentionCase& c, const AttentionLimits& limits, const std::string& what) {
  ASSERT_TRUE(uses_tiles(plan_attention(c.pages, c.formats, c.tables, limits))) << what;
  expect_attention(c, limits, what);
}

TEST(TileAttention, ChunksOfEveryLength) { tile_chunks(expect_tiles); }
TEST(TileAttention, EveryKindAndHeadDimension) { tile_kinds(expect_tiles); }
TEST(TileAttention, KeysPackedByChannel) { tile_keys_by_channel(expect_tiles); }
TEST(TileAttention, EveryKindOfScaleAndOfWhatIsKeptBeside) { tile_scales_and_kept_numbers(expect_tiles); }
TEST(TileAttention, ARaggedBatchOfMixedPages) { tile_ragged_batches(expect_tiles); }
TEST(TileAttention, TurnedSides) { tile_turned_sides(expect_tiles); }

TEST(TileAttention, AQueryThatSeesNothingGetsZeros) {
  AttentionCase c;
  c.add_page(5, 0, SideSpec{}, SideSpec{}, true);
  c.biases[0].assign(5, -std::numeric_limits<float>::infinity());
  c.tables = {{.page_count = 1, .tokens = 16, .position = 4}};
  c.queries = c.draw_rows(16 * c.head_dim);
  c.settle();
  const AttentionPlan plan = plan_attention(c.pages, c.formats, c.tables, tile_limits(1));
  ASSERT_TRUE(uses_tiles(plan));
  for (const float x : run_on_host(c, plan)) EXPECT_EQ(x, 0.0f);
}

// Queries whose numbers f16 does not hold, and which differ in size by much.
TEST(TileAttention, QueriesOfAnySize) {
  for (const SideKind kind : {SideKind::kF16, SideKind::kBF16}) {
    AttentionCase c = one_table(64, 1, 40, 16, 20, {.kind = kind}, {.kind = kind});
    for (std::size_t i = 0; i < c.queries.size(); ++i)
      c.queries[i] *= std::exp2(static_cast<float>(static_cast<int>(i / 64 % 20) * 13 - 130)) *
                      (i % 64 == 7 ? 1e-3f : 1.0f);
    // The largest make one key's weight 1; f32 itself has no bound for which one where two are close.
    for (std::size_t i = 0; i < c.queries.size(); ++i)
      if (i / 64 % 20 > 12) c.queries[i] = 0.0f;
    expect_tiles(c, tile_limits(1), "sizes");
  }
}

TEST(TileAttention, OnlyChunksOfWhatTilesTakeGoThere) {
  const auto buckets = [](int32_t group, int32_t queries, SideKind keys, SideKind values, int64_t head_dim) {
    AttentionCase c = one_table(head_dim, group, 40, 16, queries, {.kind = keys}, {.kind = values});
    return plan_attention(c.pages, c.formats, c.tables, tile_limits(group)).buckets;
  };
  using enum SideKind;
  EXPECT_EQ(buckets(1, 16, kF16, kF16, 64)[0].tiles, TileKind::kF16);
  EXPECT_EQ(buckets(1, 15, kF16, kF16, 64)[0].tiles, TileKind::kNone);
  EXPECT_EQ(buckets(16, 1, kF16, kF16, 64)[0].tiles, TileKind::kNone);
  EXPECT_EQ(buckets(8, 2, kF16, kF16, 64)[0].tiles, TileKind::kF16);
  EXPECT_EQ(buckets(8, 2, kBF16, kBF16, 128)[0].tiles, TileKind::kBF16);
  EXPECT_EQ(buckets(8, 2, kBF16, kF16, 128)[0].tiles, TileKind::kNone);
  EXPECT_EQ(buckets(8, 2, kF32, kF32, 128)[0].tiles, TileKind::kNone);
  EXPECT_EQ(buckets(8, 2, kBits4ByChannel, kBits4, 128)[0].tiles, TileKind::kDecoded);
  EXPECT_EQ(buckets(8, 2, kF16, kF16, 72)[0].tiles, TileKind::kNone);
  AttentionCase c = one_table(64, 1, 40, 16, 16, {}, {});
  EXPECT_FALSE(uses_tiles(plan_attention(c.pages, c.formats, c.tables, {})));
}

// 150 rows are items of 64, 64 and 22, each with the pages that its last row sees.
TEST(TileAttention, ItemsHaveTheRowsOfABlock) {
  AttentionCase c = one_table(64, 3, 90, 8, 50, {}, {});
  const AttentionPlan plan = plan_attention(c.pages, c.formats, c.tables, tile_limits(3));
  ASSERT_EQ(plan.items.size(), 3u);
  const int32_t rows[] = {64, 64, 22};
  for (int32_t i = 0; i < 3; ++i) {
    const AttentionItem& item = plan.items[static_cast<std::size_t>(i)];
    EXPECT_EQ(item.first_row, 64 * i);
    EXPECT_EQ(item.rows, rows[i]);
    EXPECT_EQ(item.state, 64 * i);
    const int32_t last = 40 + (item.first_row + item.rows - 1) / 3;
    EXPECT_EQ(item.page_count, last / 8 + 1);
  }
  EXPECT_EQ(plan.states, 150);
}

// 5 queries of 2 heads see 11 to 15 tokens each, in tiles or not. With places all see the last page's 3; the
// first of them lacks one of the page before.
TEST(TileAttention, OperationsByHand) {
  AttentionCase c = one_table(64, 2, 15, 4, 5, {}, {});
  for (const int32_t tile_rows : {0, 8}) {
    const AttentionPlan plan =
        plan_attention(c.pages, c.formats, c.tables, {.group = 2, .tile_rows = tile_rows});
    EXPECT_EQ(attention_flops(plan, c.pages, 2, 64), 2 * (11 + 12 + 13 + 14 + 15) * 4 * 64);
  }
  c.pages.back().has_places = true;
  c.pages.back().start = 10;  // before every query
  const AttentionPlan plan = plan_attention(c.pages, c.formats, c.tables, {.group = 2});
  EXPECT_EQ(attention_flops(plan, c.pages, 2, 64), 2 * (14 + 4 * 15) * 4 * 64);
}

// A multiprocessor of sm_80 has 164 KiB of shared memory, of which a block takes one for itself, and one of
// sm_90 228 KiB. What is less than two blocks there is left to the widest heads.
TEST(TileAttention, BlocksFitAMultiprocessor) {
  const auto blocks = [](auto width, int64_t kib) {
    return kib * 1024 / (int64_t{sizeof(TileMemory<width()>)} + 1024);
  };
  for (const int32_t head_dim : {64, 80, 96, 128, 256})
    with_tensor_width(head_dim, [&](auto width) {
      const int wanted = tile_blocks(width(), TileKind::kF16);
      EXPECT_GE(blocks(width, 228), wanted) << head_dim;
      EXPECT_GE(blocks(width, 164), head_dim == 256 ? 1 : wanted) << head_dim;
    });
}

}  // namespace
}  // namespace kva
