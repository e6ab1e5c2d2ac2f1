// Runs attention's device code lane by lane on the host.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "kernels/attention_warp.h"
#include "tests/kernels/attention_case.h"
#include "tests/kernels/host_warp.h"

namespace kva {

// [batch rows, heads * head_dim]. States and results start as NaN: what nobody wrote shows.
inline std::vector<float> run_on_host(const AttentionCase& c, const AttentionPlan& plan) {
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

inline void expect_attention(AttentionCase& c, const AttentionLimits& limits, const std::string& what) {
  c.settle();
  const AttentionPlan plan = plan_attention(c.pages, c.formats, c.tables, limits);
  const ExpectedAttention expected = expected_attention(c);
  const std::vector<float> out = run_on_host(c, plan);
  for (std::size_t i = 0; i < out.size(); ++i)
    ASSERT_NEAR(out[i], expected.out[i], expected.bound[i]) << what << ", number " << i;
  EXPECT_EQ(out, run_on_host(c, plan)) << what;
  AttentionPlan rounded = plan;
  round_up(rounded);
  EXPECT_EQ(out, run_on_host(c, rounded)) << what;
}

}  // namespace kva
