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
TEST(AttentionWarp, KeysPackedByChannel) { keys_by_channel(expect_attention); }
TEST(AttentionWarp, EveryKindOfScaleAndOfWhatIsKeptBeside) { scales_and_kept_numbers(expect_attention); }
TEST(AttentionWarp, LevelsOfTwoCodebooks) { shared_levels(expect_attention); }
TEST(AttentionWarp, Centroids) { shared_centroids(expect_attention); }
TEST(AttentionWarp, FrontsAndLowRankParts) { sides_of_parts(expect_attention); }
TEST(AttentionWarp, ARaggedBatchOfMixedPages) { ragged_batches(expect_attention); }

// Turned back or not, states are merged from both of their places.
TEST(AttentionWarp, StatesOfTurnedValuesLieBehindTheOthers) {
  AttentionCase c;
  c.group = 3;
  for (int32_t page = 0; page < 12; ++page)
    c.add_page(16, page * 16, {.kind = SideKind::kF16},
               {.kind = page % 2 ? SideKind::kBits4 : SideKind::kF32}, false);
  for (std::size_t page = 0; page < c.pages.size(); ++page) {
    c.formats[2 * page].hadamard = page % 3 == 0;
    c.formats[2 * page + 1].hadamard = page % 4 == 1;
  }
  c.tables = {{.page_count = 7, .position = 7 * 16 - 1},
              {.first_page = 7, .page_count = 5, .batch_row = 1, .tokens = 2, .position = 12 * 16 - 2}};
  c.queries = c.draw_rows(3 * c.query_stride());
  const AttentionLimits limits{.group = 3, .item_tokens = 32};
  expect_attention(c, limits, "turned pages");
  const AttentionPlan plan = plan_attention(c.pages, c.formats, c.tables, limits);
  // Runs of two pages: of the first table the pages 1 and 5, of the second 9 alone.
  EXPECT_EQ(plan.turned_states, 2 * 3 + 1 * 6);
  for (const AttentionBucket& bucket : plan.buckets)
    for (int32_t i = bucket.first; i < bucket.first + bucket.count; ++i) {
      const AttentionItem& item = plan.items[static_cast<std::size_t>(i)];
      const int32_t page = plan.page_list[static_cast<std::size_t>(item.first_page)];
      EXPECT_EQ(bucket.hadamard_keys, page % 3 == 0);
      EXPECT_EQ(item.state >= plan.states - plan.turned_states, page % 4 == 1);
    }
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
