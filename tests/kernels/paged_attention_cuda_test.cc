// Attention over pages by the CUDA kernels, against attention over the decoded pages on the CPU. Skips
// without a device.
#include "kernels/paged_attention_cuda.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>

#include "kernels/device_buffer.h"
#include "tests/kernels/attention_batches.h"
#include "tests/kernels/tile_batches.h"

namespace kva {
namespace {

class CudaAttention : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
  }
};

constexpr std::size_t kGuards = 64;  // floats behind the results and the states that nobody may write

template <typename T>
DeviceBuffer upload(const std::vector<T>& values) {
  return DeviceBuffer::holding(std::span<const T>(values));
}

std::vector<float> run_on_device(const AttentionCase& c, const AttentionPlan& plan) {
  const float poison = std::numeric_limits<float>::quiet_NaN();
  std::vector<DeviceBuffer> payloads;  // of keys, values, what they build on, biases by page
  std::vector<DevicePage> pages = c.pages;
  std::vector<SideFormat> of_sides = c.formats;
  const auto share = [&](const HostSide& side, uint16_t format) {
    if (side.shared.empty()) return;
    payloads.push_back(upload(side.shared));
    of_sides[format].shared[kSharedNumbers] = payloads.back().as<std::byte>();
  };
  for (std::size_t i = 0; i < pages.size(); ++i) {
    payloads.push_back(upload(c.keys[i].payload));
    pages[i].keys = payloads.back().as<std::byte>();
    payloads.push_back(upload(c.values[i].payload));
    pages[i].values = payloads.back().as<std::byte>();
    payloads.push_back(upload(c.keys[i].base));
    pages[i].key_base = payloads.back().as<std::byte>();
    payloads.push_back(upload(c.values[i].base));
    pages[i].value_base = payloads.back().as<std::byte>();
    share(c.keys[i], pages[i].key_format);
    share(c.values[i], pages[i].value_format);
    payloads.push_back(upload(c.biases[i]));
    pages[i].biases = c.biases[i].empty() ? nullptr : payloads.back().as<float>();
  }
  const auto dim = static_cast<std::size_t>(c.head_dim);
  const std::vector<float> states(static_cast<std::size_t>(plan.states) * (dim + 2) + kGuards, poison);
  const std::vector<float> empty(c.queries.size() + kGuards, poison);
  const DeviceBuffer of_pages = upload(pages), formats = upload(of_sides), items = upload(plan.items),
                     page_list = upload(plan.page_list), merges = upload(plan.merges),
                     projections = upload(plan.projections), lifts = upload(plan.lifts),
                     coordinate_queries = upload(
                         std::vector<float>(static_cast<std::size_t>(plan.coordinate_queries) * 8, poison)),
                     coordinate_sums = upload(
                         std::vector<float>(static_cast<std::size_t>(plan.coordinate_sums) * 8, poison)),
                     queries = upload(c.queries), of_states = upload(states), out = upload(empty);
  const auto count = static_cast<std::size_t>(plan.states);
  const AttentionJob job{.items = items.as<AttentionItem>(),
                         .page_list = page_list.as<int32_t>(),
                         .pages = of_pages.as<DevicePage>(),
                         .formats = formats.as<SideFormat>(),
                         .queries = queries.as<float>(),
                         .query_stride = c.query_stride(),
                         .head_dim = static_cast<int32_t>(c.head_dim),
                         .group = c.group,
                         .scale = c.scale,
                         .longest_page = plan.longest_page,
                         .key_numbers = plan.key_numbers,
                         .value_numbers = plan.value_numbers,
                         .state_values = of_states.as<float>(),
                         .state_max = of_states.as<float>() + count * dim,
                         .state_sum = of_states.as<float>() + count * (dim + 1),
                         .projections = projections.as<AttentionProjection>(),
                         .lifts = lifts.as<AttentionLift>(),
                         .coordinate_queries = coordinate_queries.as<float>(),
                         .coordinate_sums = coordinate_sums.as<float>(),
                         .widest = plan.widest};
  attend_cuda(plan, job, merges.as<AttentionMerge>(), out.as<float>(), c.query_stride(), nullptr);
  std::vector<float> result(empty.size()), all_states(states.size());
  out.download(result.data(), result.size() * sizeof(float));
  of_states.download(all_states.data(), all_states.size() * sizeof(float));
  for (std::size_t i = 0; i < kGuards; ++i) {
    EXPECT_EQ(std::memcmp(&result[result.size() - 1 - i], &poison, sizeof poison), 0) << "behind the results";
    EXPECT_EQ(std::memcmp(&all_states[all_states.size() - 1 - i], &poison, sizeof poison), 0)
        << "behind the states";
  }
  result.resize(c.queries.size());
  return result;
}

void expect_on_device(AttentionCase& c, const AttentionLimits& limits, const std::string& what) {
  c.settle();
  const AttentionPlan plan = plan_attention(c.pages, c.formats, c.tables, limits);
  const ExpectedAttention expected = expected_attention(c);
  const std::vector<float>& bound = limits.tile_rows > 0 ? expected.tile_bound : expected.bound;
  const std::vector<float> out = run_on_device(c, plan);
  for (std::size_t i = 0; i < out.size(); ++i)
    ASSERT_NEAR(out[i], expected.out[i], bound[i]) << what << ", number " << i;
  const std::vector<float> again = run_on_device(c, plan);
  EXPECT_EQ(std::memcmp(out.data(), again.data(), out.size() * sizeof(float)), 0) << what << ", again";
}

TEST_F(CudaAttention, EveryBatchMatchesTheCpu) { for_attention_cases(expect_on_device); }
TEST_F(CudaAttention, EveryBatchOfTilesMatchesTheCpu) { for_tile_cases(expect_on_device); }

}  // namespace
}  // namespace kva
