// Runs attention's device code lane by lane on the host.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "tests/kernels/attention_case.h"
#include "tests/kernels/attention_lanes.h"
#include "tests/kernels/host_warp.h"

namespace kva {

// [batch rows, heads * head_dim]. States and results start as NaN: what nobody wrote shows.
inline std::vector<float> run_on_host(const AttentionCase& c, const AttentionPlan& plan) {
  const float poison = std::numeric_limits<float>::quiet_NaN();
  const auto states = static_cast<std::size_t>(plan.states);
  std::vector<float> values(states * static_cast<std::size_t>(c.head_dim), poison), max(states, poison),
      sum(states, poison);
  std::vector<float> coordinate_queries(static_cast<std::size_t>(plan.coordinate_queries) * kUnit, poison),
      coordinate_sums(static_cast<std::size_t>(plan.coordinate_sums) * kUnit, poison);
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
                         .key_numbers = plan.key_numbers,
                         .value_numbers = plan.value_numbers,
                         .state_values = values.data(),
                         .state_max = max.data(),
                         .state_sum = sum.data(),
                         .projections = plan.projections.data(),
                         .lifts = plan.lifts.data(),
                         .coordinate_queries = coordinate_queries.data(),
                         .coordinate_sums = coordinate_sums.data(),
                         .widest = plan.widest};
  HostWarp warp;
  std::vector<float> out(c.queries.size(), poison);
  attend_by_lanes<false>(warp, plan, job, plan.merges.data(), out.data(), c.query_stride());
  return out;
}

inline void expect_attention_of_plan(AttentionCase& c, const AttentionLimits& limits,
                                     const std::string& what) {
  const AttentionPlan plan = plan_attention(c.pages, c.formats, c.tables, limits);
  const ExpectedAttention expected = expected_attention(c);
  const std::vector<float>& bound = limits.tile_rows > 0 ? expected.tile_bound : expected.bound;
  const std::vector<float> out = run_on_host(c, plan);
  for (std::size_t i = 0; i < out.size(); ++i)
    ASSERT_NEAR(out[i], expected.out[i], bound[i]) << what << ", number " << i;
  EXPECT_EQ(out, run_on_host(c, plan)) << what;
  AttentionPlan rounded = plan;
  round_up(rounded);
  EXPECT_EQ(out, run_on_host(c, rounded)) << what;
}

// By narrow items, where pages can be read so, and without them.
inline void expect_attention(AttentionCase& c, const AttentionLimits& limits, const std::string& what) {
  c.settle();
  expect_attention_of_plan(c, limits, what);
  if (!has_narrow_items(c, limits)) return;
  AttentionLimits other = limits;
  other.narrow = false;
  expect_attention_of_plan(c, other, what + ", without narrow items");
}

}  // namespace kva
