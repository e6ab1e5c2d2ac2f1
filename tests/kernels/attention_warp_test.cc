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
TEST(AttentionWarp, ARaggedBatchOfMixedPages) { ragged_batches(expect_attention); }

TEST(AttentionWarp, AQueryThatSeesNothingGetsZeros) {
  AttentionCase c;
  c.add_page(5, 0, {}, {}, true);
  c.biases[0].assign(5, -std::numeric_limits<float>::infinity());
  c.tables = {{.page_count = 1, .position = 4}, {.page_count = 0, .batch_row = 1}};
  c.queries = c.draw_rows(2 * c.head_dim);
  c.settle();
  const AttentionPlan plan = plan_attention(c.pages, c.formats, c.tables, {});
  for (const float x : run_on_host(c, plan)) EXPECT_EQ(x, 0.0f);
}

}  // namespace
}  // namespace kva
