// The device's attention, run lane by lane on the host, against attention over the decoded pages.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "tests/kernels/attention_batches.h"
#include "tests/kernels/attention_on_host.h"

namespace kva {
namespace {

TEST(AttentionWarp, EveryKindAtAwkwardSizes) { awkward_sizes(expect_attention); }
TEST(AttentionWarp, OddHeadSizes) { odd_head_sizes(expect_attention); }
TEST(AttentionWarp, NarrowItems) { narrow_items(expect_attention); }
TEST(AttentionWarp, NarrowItemsOfMixedSides) { narrow_items_of_mixed_sides(expect_attention); }
TEST(AttentionWarp, NarrowItemsOfPagesThatKeepNumbers) { narrow_items_with_kept(expect_attention); }
TEST(AttentionWarp, KeysPackedByChannel) { keys_by_channel(expect_attention); }
TEST(AttentionWarp, EveryKindOfScaleAndOfWhatIsKeptBeside) { scales_and_kept_numbers(expect_attention); }
TEST(AttentionWarp, LevelsOfTwoCodebooks) { shared_levels(expect_attention); }
TEST(AttentionWarp, Centroids) { shared_centroids(expect_attention); }
TEST(AttentionWarp, FrontsAndLowRankParts) { sides_of_parts(expect_attention); }
TEST(AttentionWarp, ARaggedBatchOfMixedPages) { ragged_batches(expect_attention); }

TEST(AttentionWarp, SidesThatScaleABase) { scaled_sides(expect_attention); }
TEST(AttentionWarp, SidesOnABasis) { sides_on_a_basis(expect_attention); }
TEST(AttentionWarp, ARaggedBatchOfCoordinates) { ragged_coordinates(expect_attention); }

// Each table has its queries once for every basis and turn of its keys; every run's sums are lifted to its
// states.
TEST(AttentionWarp, QueriesAreProjectedOnceForATable) {
  AttentionCase c;
  c.group = 3;
  const std::vector<std::vector<float>> bases = {make_basis(5, 64, 1), make_basis(16, 64, 2)};
  const auto on = [&](uint16_t which, SideKind kind) {
    const std::vector<float>& basis = bases[which - 1u];
    return make_basis_side(c.draw_rows(16 * std::ssize(basis) / 64), basis, 64, which, {.kind = kind}, false,
                           3);
  };
  for (int32_t page = 0; page < 8; ++page)
    c.add_sides(16, page * 16, on(page < 6 ? 1 : 2, page % 2 ? SideKind::kF16 : SideKind::kBits4),
                on(1, SideKind::kF16), false);
  c.tables = {{.page_count = 4, .position = 63},
              {.first_page = 4, .page_count = 4, .batch_row = 1, .tokens = 2, .position = 126}};
  c.queries = c.draw_rows(3 * c.query_stride());
  const AttentionLimits limits{.group = 3, .item_tokens = 32};
  c.settle();
  const AttentionPlan plan = plan_attention(c.pages, c.formats, c.tables, limits);
  ASSERT_EQ(plan.projections.size(), 3u);
  EXPECT_EQ(plan.projections[0].rows, 3);
  EXPECT_EQ(plan.projections[1].rows, 6);
  EXPECT_EQ(plan.projections[2].page, 7);  // f16 comes first
  EXPECT_EQ(plan.coordinate_queries, 3 * 1 + 6 * 1 + 6 * 2);
  // Runs of two pages, and two kinds of keys in each.
  EXPECT_EQ(plan.lifts.size(), 8u);
  EXPECT_EQ(plan.coordinate_sums, (4 * 3 + 4 * 6) * 1);
  expect_attention(c, limits, "two bases");
}

TEST(AttentionWarp, TablesOfManyQueriesHaveFewerRuns) {
  AttentionCase c = one_table(8, 4, 128, 8, 6, {.kind = SideKind::kF16}, {.kind = SideKind::kF16});
  AttentionLimits limits{.group = 4, .item_tokens = 8};
  EXPECT_EQ(plan_attention(c.pages, c.formats, c.tables, limits).states, 16 * 24);
  limits.most_states = 100;
  EXPECT_EQ(plan_attention(c.pages, c.formats, c.tables, limits).states, 4 * 24);
  expect_attention(c, limits, "four runs");
  limits.most_states = 10;
  EXPECT_EQ(plan_attention(c.pages, c.formats, c.tables, limits).states, 24);
  expect_attention(c, limits, "one run");
}

TEST(AttentionWarp, AQueryThatSeesNothingGetsZeros) {
  AttentionCase c;
  c.add_page(5, 0, SideSpec{}, SideSpec{}, true);
  c.biases[0].assign(5, -std::numeric_limits<float>::infinity());
  c.tables = {{.page_count = 1, .position = 4}, {.page_count = 0, .batch_row = 1}};
  c.queries = c.draw_rows(2 * c.head_dim);
  c.settle();
  const AttentionPlan plan = plan_attention(c.pages, c.formats, c.tables, {});
  for (const float x : run_on_host(c, plan)) EXPECT_EQ(x, 0.0f);
}

}  // namespace
}  // namespace kva
