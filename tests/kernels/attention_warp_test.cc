// The device's attention, run lane by lane on the host, against attention over the decoded pages.
#include "kernels/attention_warp.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "tests/kernels/attention_batches.h"
#include "tests/kernels/host_warp.h"

namespace kva {
namespace {

// [batch rows, heads * head_dim]. States and results start as NaN: what nobody wrote shows.
std::vector<float> run_on_host(const AttentionCase& c, const AttentionPlan& plan) {
  const float poison = std::numeric_limits<float>::quiet_NaN();
  const auto states = static_cast<std::size_t>(plan.states);
  std::vector<float> values(states * static_cast<std::size_t>(c.head_dim), poison), max(states, poison),
      sum(states, poison);
  const AttentionJob job{.items = plan.items.data(),
                         .page_list = plan.page_list.data(),
                         .pages = c.pages.data(),
                         .formats = c.formats.data(),
                         .queries = c.queries.data(),
                         .query_stride = c.query_stride(),
                         .head_dim = static_cast<int32_t>(c.head_dim),
                         .group = c.group,
                         .scale = c.scale,
                         .longest_page = plan.longest_page,
                         .state_values = values.data(),
                         .state_max = max.data(),
                         .state_sum = sum.data()};
  HostWarp warp;
  std::vector<float> shared(static_cast<std::size_t>(attention_shared_values(c.head_dim, plan.longest_page)));
  for (const AttentionBucket& bucket : plan.buckets)
    for (int32_t i = 0; i < bucket.count; ++i) {
      std::fill(shared.begin(), shared.end(), poison);
      const AttentionItem& item = plan.items[static_cast<std::size_t>(bucket.first + i)];
      warp.run([&](HostWarp::Lane& lane) {
        attend_item(lane, job, bucket.keys, bucket.values, item, shared.data());
      });
    }
  std::vector<float> out(c.queries.size(), poison);
  for (const AttentionMerge& merge : plan.merges)
    for (int32_t row = 0; row < merge.rows; ++row) {
      float* to = out.data() + result_at(merge, row, c.group, job.head_dim, c.query_stride());
      for (int32_t k = 0; k < job.head_dim; ++k)
        to[k] = merged_value(merge, row, k, job.head_dim, values.data(), max.data(), sum.data());
    }
  return out;
}

void expect_attention(AttentionCase& c, const AttentionLimits& limits, const std::string& what) {
  c.settle();
  const AttentionPlan plan = plan_attention(c.pages, c.formats, c.tables, limits);
  const ExpectedAttention expected = expected_attention(c);
  const std::vector<float> out = run_on_host(c, plan);
  for (std::size_t i = 0; i < out.size(); ++i)
    ASSERT_NEAR(out[i], expected.out[i], expected.bound[i]) << what << ", number " << i;
  EXPECT_EQ(out, run_on_host(c, plan)) << what;
}

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
