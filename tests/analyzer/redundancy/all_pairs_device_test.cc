// All pairs of pages on a device against the CPU. Pages of few small numbers, whose products are exact in any
// order, have to agree in every bit; others within the rounding of their products.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "analyzer/redundancy/all_pairs.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "tests/analyzer/redundancy/page_set_builder.h"
#include "tests/runtime/kv/device_under_test.h"

namespace kva {
namespace {

using ::testing::HasSubstr;

class AllPairsOnADevice : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!device_under_test()) GTEST_SKIP() << "no device";
  }
};

struct Case {
  PageSetSpec spec;
  int64_t tile_pages = kDeviceTilePages;
  bool heads = true;
  bool across_sets = true;
  bool prompts = true;
  int partners = 4;
  int heat_bins = 7;
};

std::string name_of(const Case& c) {
  int64_t pages = 0;
  for (const auto& set : c.spec.sets)
    for (const int64_t of_prompt : set) pages += of_prompt;
  return std::to_string(pages) + " pages, " + std::to_string(c.spec.kv_heads) + " heads of " +
         std::to_string(c.spec.page_tokens) + " x " + std::to_string(c.spec.head_dim) + ", tiles of " +
         std::to_string(c.tile_pages);
}

const std::vector<float> kThresholds = {-0.25f, 0.1f, 0.5f, 0.9f};

struct Both {
  AllPairs host;
  AllPairs device;
};

Both compare(const Case& c, const PageValue& value, DType products = DType::kF32) {
  ThreadPool pool(2);
  const PageSet set = build_page_set(c.spec, value);
  RawPages raw = load_pages(set, 0, SideBasis::kValue, pool);
  const std::vector<float> means = channel_means(raw, pool);
  PageMatrix pages(std::move(raw), means, 0.25, pool);
  if (products == DType::kBF16) pages.round_products(pool);
  const Grouping grouping = group_pages(set);
  PairPlan plan;
  plan.thresholds = kThresholds;
  plan.heads = c.heads;
  plan.across_sets = c.across_sets;
  plan.prompts = c.prompts;
  plan.partners = c.partners;
  plan.heat_bins = c.heat_bins;
  const auto backend = make_device_backend(device_under_test());
  Both both;
  both.host = compare_all_pairs(pages, grouping, plan, pool);
  int64_t last = 0;
  both.device = compare_all_pairs_on_device(
      pages, grouping, plan, *backend,
      [&](int64_t done) {
        EXPECT_GE(done, last);
        last = done;
      },
      c.tile_pages);
  EXPECT_EQ(last, pair_count(grouping, c.across_sets));
  EXPECT_EQ(backend->allocated_bytes(), 0);
  return both;
}

void expect_equal(const ValueTotals& a, const ValueTotals& b) {
  EXPECT_EQ(a.count, b.count);
  EXPECT_EQ(a.sum, b.sum);
  EXPECT_EQ(a.standard_deviation(), b.standard_deviation());
  EXPECT_THAT(a.over, ::testing::ElementsAreArray(b.over));
  EXPECT_EQ(a.min, b.min);
  EXPECT_EQ(a.max, b.max);
}

void expect_equal(const MetricTotals& host, const MetricTotals& device) {
  ASSERT_EQ(host.groups.size(), device.groups.size());
  for (std::size_t g = 0; g < host.groups.size(); ++g) {
    const PairTotals& a = host.groups[g];
    const PairTotals& b = device.groups[g];
    expect_equal(a.values, b.values);
    EXPECT_EQ(a.histogram, b.histogram);
    // The device rounds each distance, the CPU some sums of them.
    EXPECT_LE(std::abs(a.distance - b.distance), a.values.count) << "group " << g;
  }
  EXPECT_EQ(host.best_in_set, device.best_in_set);
  EXPECT_EQ(host.best_across, device.best_across);
  EXPECT_EQ(host.best_earlier, device.best_earlier);
  EXPECT_EQ(host.best_later, device.best_later);
  ASSERT_EQ(host.prompts.size(), device.prompts.size());
  for (std::size_t p = 0; p < host.prompts.size(); ++p) expect_equal(host.prompts[p], device.prompts[p]);
}

void expect_equal(const Both& both) {
  ASSERT_EQ(both.host.scopes.size(), both.device.scopes.size());
  for (std::size_t s = 0; s < both.host.scopes.size(); ++s)
    for (std::size_t m = 0; m < kMetrics; ++m) {
      SCOPED_TRACE(::testing::Message() << "scope " << s << ", metric " << m);
      expect_equal(both.host.scopes[s][m], both.device.scopes[s][m]);
    }
  ASSERT_EQ(both.host.partners.size(), both.device.partners.size());
  for (std::size_t k = 0; k < both.host.partners.size(); ++k) {
    ASSERT_EQ(both.host.partners[k].page, both.device.partners[k].page) << "partner " << k;
    ASSERT_EQ(both.host.partners[k].similarity, both.device.partners[k].similarity) << "partner " << k;
  }
  EXPECT_EQ(both.host.heat_sums, both.device.heat_sums);
  EXPECT_EQ(both.host.heat_counts, both.device.heat_counts);
}

// Eighths from -1 to 1, whose means are 0: the second half of a page's tokens are the first, negated. Some
// pages repeat others, one is zeros.
PageValue exact_values_of(int page_tokens) {
  return [=](int layer, Side side, int64_t page, int64_t head, int64_t token, int64_t channel) {
    if (page == 5) return 0.0f;
    const int64_t half = page_tokens / 2;
    const auto drawn = static_cast<uint64_t>(page % 11 == 10 ? page - 7 : page);
    SeededRandom random(drawn * 131 + static_cast<uint64_t>((head * 64 + token % half) * 1024 + channel),
                        side_index(layer, side));
    const float value = static_cast<float>(static_cast<int>(random.next() >> 33 & 15) - 8) / 8.0f;
    return token < half ? value : -value;
  };
}

void expect_exact(const Case& c) {
  SCOPED_TRACE(name_of(c));
  expect_equal(compare(c, exact_values_of(c.spec.page_tokens)));
}

TEST_F(AllPairsOnADevice, AwkwardCountsOfPages) {
  for (const int64_t pages : {2, 9, 33, 65, 130})
    for (const int64_t tile : {int64_t{32}, kDeviceTilePages})
      expect_exact(
          {.spec = {.kv_heads = 2, .head_dim = 3, .page_tokens = 4, .sets = {{pages}}}, .tile_pages = tile});
}

TEST_F(AllPairsOnADevice, AwkwardWidths) {
  for (const int head_dim : {1, 5, 32, 33, 64})
    for (const int heads : {1, 3})
      expect_exact(
          {.spec = {.kv_heads = heads, .head_dim = head_dim, .page_tokens = 2, .sets = {{20, 3}, {10}}}});
}

TEST_F(AllPairsOnADevice, SetsAndPrompts) {
  const std::vector<std::vector<std::vector<int64_t>>> all = {
      {{1}, {1}}, {{1, 1, 1}, {2}, {40, 1, 7}}, {{70, 3}, {0, 66}, {1}, {5, 5}}, {{0}, {130}}};
  for (const auto& sets : all)
    for (const bool across : {true, false})
      for (const int64_t tile : {int64_t{16}, int64_t{64}, kDeviceTilePages})
        expect_exact({.spec = {.kv_heads = 2, .head_dim = 3, .page_tokens = 2, .sets = sets},
                      .tile_pages = tile,
                      .across_sets = across});
}

// More than a block's rows and columns.
TEST_F(AllPairsOnADevice, ManyPages) {
  expect_exact({.spec = {.kv_heads = 1, .head_dim = 5, .page_tokens = 2, .sets = {{300, 41}, {200}}},
                .heat_bins = 96});
}

TEST_F(AllPairsOnADevice, WhatIsNotAskedForIsLeftOut) {
  const PageSetSpec spec{.kv_heads = 2, .head_dim = 3, .page_tokens = 2, .sets = {{20, 9}, {11}}};
  expect_exact({.spec = spec, .heads = false});
  expect_exact({.spec = spec, .prompts = false, .partners = 0, .heat_bins = 0});
  expect_exact({.spec = spec, .heads = false, .across_sets = false, .partners = 64});
}

double distance_of(const MetricTotals& totals) {
  double distance = 0.0;
  for (const PairTotals& group : totals.groups) distance += static_cast<double>(group.distance);
  return distance * kDistanceUnit;
}

void expect_near(const Both& both, double tolerance) {
  for (std::size_t s = 0; s < both.host.scopes.size(); ++s)
    for (std::size_t m = 0; m < kMetrics; ++m) {
      SCOPED_TRACE(::testing::Message() << "scope " << s << ", metric " << m);
      const MetricTotals& host = both.host.scopes[s][m];
      const MetricTotals& device = both.device.scopes[s][m];
      // Bits are counted, not rounded.
      if (m >= 3) {
        expect_equal(host, device);
        continue;
      }
      for (std::size_t g = 0; g < host.groups.size(); ++g) {
        const ValueTotals& a = host.groups[g].values;
        const ValueTotals& b = device.groups[g].values;
        EXPECT_EQ(a.count, b.count);
        EXPECT_NEAR(a.mean(), b.mean(), tolerance);
        EXPECT_NEAR(a.standard_deviation(), b.standard_deviation(), tolerance);
        EXPECT_NEAR(a.max, b.max, tolerance);
      }
      for (std::size_t p = 0; p < host.best_in_set.size(); ++p)
        ASSERT_NEAR(host.best_in_set[p], device.best_in_set[p], tolerance) << "page " << p;
      EXPECT_NEAR(distance_of(host), distance_of(device), 1e-5 * distance_of(host) + 1e-3);
    }
  for (std::size_t k = 0; k < both.host.partners.size(); ++k)
    ASSERT_NEAR(both.host.partners[k].similarity, both.device.partners[k].similarity, tolerance);
}

TEST_F(AllPairsOnADevice, RoundedProductsAreNear) {
  const Case c{.spec = {.kv_heads = 2, .head_dim = 64, .page_tokens = 8, .sets = {{60, 30}, {40}}},
               .tile_pages = 64};
  expect_near(compare(c, textured_values(3)), 2.0 * 1024 * 0x1p-24 + 1e-6);
}

TEST_F(AllPairsOnADevice, TheSameBitsTwice) {
  const Case c{.spec = {.kv_heads = 2, .head_dim = 16, .page_tokens = 4, .sets = {{90}, {40}}},
               .tile_pages = 64};
  Both first = compare(c, textured_values(4));
  Both second = compare(c, textured_values(4));
  first.host = std::move(second.device);
  expect_equal(first);
}

TEST_F(AllPairsOnADevice, IsEstimatedAndInterrupted) {
  ThreadPool pool(1);
  const PageSet set = build_page_set({.sets = {{40}}}, textured_values(1));
  RawPages raw = load_pages(set, 0, SideBasis::kValue, pool);
  const std::vector<float> means = channel_means(raw, pool);
  const PageMatrix pages(std::move(raw), means, 0.25, pool);
  const Grouping grouping = group_pages(set);
  PairPlan plan;
  plan.thresholds = kThresholds;
  const auto backend = make_device_backend(device_under_test());
  EXPECT_GT(estimated_seconds_on_device(pages, grouping, plan, *backend), 0.0);
  EXPECT_THROW(compare_all_pairs_on_device(
                   pages, grouping, plan, *backend, [](int64_t) { throw Interrupted(); }, 16),
               Interrupted);
  EXPECT_EQ(backend->allocated_bytes(), 0);
}

TEST_F(AllPairsOnADevice, AnAnalysisIsTheCpus) {
  const PageSet set = build_page_set(
      {.layers = 2, .kv_heads = 2, .head_dim = 8, .rope = true, .sets = {{30, 9}, {24}}}, textured_values(7));
  ThreadPool pool(2);
  RedundancyOptions options;
  options.cluster_iterations = 2;
  const RedundancyResult host = analyze_redundancy(set, options, pool);
  options.device = make_device_backend(device_under_test());
  double estimated_s = 0.0;
  const RedundancyResult device =
      analyze_redundancy(set, options, pool, {}, [&](double seconds) { estimated_s = seconds; });
  EXPECT_EQ(options.device->allocated_bytes(), 0);
  EXPECT_LE(options.device->peak_bytes(), redundancy_device_bytes(set, options));
  EXPECT_GT(estimated_s, 0.0);
  ASSERT_EQ(host.similarity.size(), device.similarity.size());
  for (std::size_t r = 0; r < host.similarity.size(); ++r) {
    const SimilarityRow& a = host.similarity[r];
    const SimilarityRow& b = device.similarity[r];
    EXPECT_EQ(a.group, b.group);
    EXPECT_EQ(a.real.pairs, b.real.pairs);
    EXPECT_NEAR(a.real.mean, b.real.mean, 1e-6);
    EXPECT_NEAR(a.shuffled.mean, b.shuffled.mean, 1e-6);
    EXPECT_EQ(a.random.mean, b.random.mean);
    EXPECT_NEAR(a.l2_mean, b.l2_mean, 1e-5 * a.l2_mean + 1e-6);
    if (a.metric == Metric::kHamming || a.metric == Metric::kJaccard) {
      EXPECT_EQ(a.real.mean, b.real.mean);
      EXPECT_EQ(a.real.histogram, b.real.histogram);
      EXPECT_EQ(a.real.redundancy, b.real.redundancy);
    }
  }
  ASSERT_EQ(host.heatmaps.size(), device.heatmaps.size());
  for (std::size_t h = 0; h < host.heatmaps.size(); ++h)
    for (std::size_t c = 0; c < host.heatmaps[h].data.size(); ++c)
      EXPECT_NEAR(host.heatmaps[h].data[c], device.heatmaps[h].data[c], 1);
  ASSERT_EQ(host.duplicates.size(), device.duplicates.size());
  for (std::size_t r = 0; r < host.duplicates.size(); ++r) {
    EXPECT_EQ(host.duplicates[r].duplicates, device.duplicates[r].duplicates);
    EXPECT_EQ(host.duplicates[r].shuffled_duplicates, device.duplicates[r].shuffled_duplicates);
  }
}

TEST_F(AllPairsOnADevice, NotEnoughMemoryIsSaid) {
  if (!device_memory_is_chosen()) GTEST_SKIP() << "a device has the memory it has";
  ThreadPool pool(1);
  const PageSet set = build_page_set({.sets = {{200}}}, textured_values(1));
  RawPages raw = load_pages(set, 0, SideBasis::kValue, pool);
  const std::vector<float> means = channel_means(raw, pool);
  const PageMatrix pages(std::move(raw), means, 0.25, pool);
  PairPlan plan;
  plan.thresholds = kThresholds;
  const auto backend = make_device_backend(device_under_test(4096));
  try {
    compare_all_pairs_on_device(pages, group_pages(set), plan, *backend);
    FAIL() << "4 KiB were enough";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("pages to compare"));
  }
}

}  // namespace
}  // namespace kva
