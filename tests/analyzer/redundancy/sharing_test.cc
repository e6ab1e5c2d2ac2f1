// Duplicates, covers, clusters, growth and differences between sets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "analyzer/redundancy/clusters.h"
#include "analyzer/redundancy/cover.h"
#include "analyzer/redundancy/duplicates.h"
#include "analyzer/redundancy/redundancy.h"
#include "analyzer/redundancy/set_differences.h"
#include "runtime/error.h"
#include "tests/analyzer/redundancy/naive_similarity.h"
#include "tests/analyzer/redundancy/page_set_builder.h"
#include "tests/kernels/lane_device.h"

namespace kva {
namespace {

TEST(Duplicates, CountsRepeatsOfAnEarlierPage) {
  const std::string pages = "aabbaaccbbaaxy";  // pages of two bytes
  const auto fetch = [&](int64_t page, std::byte*) {
    return reinterpret_cast<const std::byte*>(pages.data()) + page * 2;
  };
  EXPECT_EQ(count_duplicates(7, 2, fetch), 3);
  EXPECT_EQ(count_duplicates(2, 2, fetch), 0);
}

TEST(Duplicates, PlantedCopiesAreFoundAcrossHeads) {
  PageSetSpec spec;
  spec.kv_heads = 2;
  spec.head_dim = 8;
  spec.dtype = DType::kF16;
  spec.sets = {{10}};
  const PageValue texture = textured_values(2);
  // Page 7 head 1 and page 9 head 0 are copies of page 2 head 0.
  const PageSet set = build_page_set(spec, [&](int l, Side s, int64_t p, int64_t h, int64_t t, int64_t c) {
    if ((p == 7 && h == 1) || (p == 9 && h == 0)) return texture(l, s, 2, 0, t, c);
    return texture(l, s, p, h, t, c);
  });
  ThreadPool pool(1);
  for (const DuplicateRow& row : analyze_redundancy(set, {}, pool).duplicates) {
    EXPECT_EQ(row.pages, 20);
    EXPECT_EQ(row.duplicates, 2);
    EXPECT_EQ(row.unique, 18);
    EXPECT_EQ(row.bytes, 2 * 2 * 8 * 2);
    EXPECT_EQ(row.shuffled_duplicates, 0);
  }
}

PageSet cover_pages_set() {
  PageSetSpec spec;
  spec.kv_heads = 2;
  spec.head_dim = 8;
  spec.page_tokens = 4;
  spec.sets = {{300}};  // several tiles
  return build_page_set(spec, textured_values(8));
}

PageMatrix matrix_of(const PageSet& set, SideBasis side, ThreadPool& pool) {
  RawPages raw = load_pages(set, 0, side, pool);
  const std::vector<float> means = channel_means(raw, pool);
  return PageMatrix(std::move(raw), means, 0.25, pool);
}

TEST(Cover, EveryFreedPageHasAKeptLeaderAndNoKeptPageHasOne) {
  const PageSet set = cover_pages_set();
  ThreadPool pool(2);
  const PageMatrix pages = matrix_of(set, SideBasis::kValue, pool);
  const std::vector<float> thresholds = {0.5f, 0.8f, 0.95f};
  int64_t freed_pages = 0;
  for (int head = 0; head < 2; ++head) {
    const NaiveScope naive(set, 0, SideBasis::kValue, head);
    const Cover cover = cover_pages(pages, head, thresholds);
    for (const Metric metric : {Metric::kCosine, Metric::kL2})
      for (std::size_t t = 0; t < thresholds.size(); ++t) {
        const std::vector<char>& freed = (metric == Metric::kCosine ? cover.cosine : cover.l2)[t];
        for (std::size_t p = 0; p < freed.size(); ++p) {
          double best = -2.0;
          for (std::size_t q = 0; q < p; ++q)
            if (!freed[q]) best = std::max(best, naive.similarity(metric, p, q));
          // Rounding may decide only what lies within it.
          if (freed[p]) {
            EXPECT_GT(best, double{thresholds[t]} - 1e-5);
          } else {
            EXPECT_LT(best, double{thresholds[t]} + 1e-5);
          }
          freed_pages += freed[p];
        }
      }
  }
  EXPECT_GT(freed_pages, 100);
  EXPECT_LT(freed_pages, 2 * 2 * 3 * 300);
}

TEST(Cover, OnADeviceAsOnTheHost) {
  const PageSet set = cover_pages_set();
  ThreadPool pool(1);
  const PageMatrix pages = matrix_of(set, SideBasis::kValue, pool);
  const std::vector<float> thresholds = {0.5f, 0.8f, 0.9f, 0.99f};
  const auto device = make_device_backend(make_lane_device());
  for (const int64_t tile : {int64_t{7}, int64_t{64}, int64_t{300}, kDeviceTilePages}) {
    const std::vector<Cover> found = cover_heads_on_device(pages, thresholds, *device, tile);
    ASSERT_EQ(found.size(), 2U);
    for (int head = 0; head < 2; ++head) {
      const Cover expected = cover_pages(pages, head, thresholds);
      EXPECT_EQ(found[static_cast<std::size_t>(head)].cosine, expected.cosine) << "tiles of " << tile;
      EXPECT_EQ(found[static_cast<std::size_t>(head)].l2, expected.l2) << "tiles of " << tile;
    }
  }
}

TEST(Cover, OpportunityAddsUpTheHeads) {
  const PageSet set = cover_pages_set();
  ThreadPool pool(2);
  const RedundancyResult result = analyze_redundancy(set, {}, pool);
  const PageMatrix pages = matrix_of(set, SideBasis::kValue, pool);
  const std::vector<float> thresholds = {0.9f};
  int64_t freed = 0;
  for (int head = 0; head < 2; ++head) {
    const Cover cover = cover_pages(pages, head, thresholds);
    freed += std::count(cover.cosine[0].begin(), cover.cosine[0].end(), 1);
  }
  for (const OpportunityRow& row : result.opportunity) {
    EXPECT_EQ(row.pages, 600);
    EXPECT_EQ(row.freed_bytes, row.freed_pages * 4 * 8 * 4);
    EXPECT_EQ(row.dense_bytes, 600 * 4 * 8 * 4);
    if (row.side == SideBasis::kValue && row.metric == Metric::kCosine && row.threshold == 0.9) {
      EXPECT_EQ(row.freed_pages, freed);
    }
  }
}

// Pages around three far centres.
PageSet three_groups() {
  PageSetSpec spec;
  spec.head_dim = 4;
  spec.sets = {{30}};
  const PageValue texture = textured_values(9);
  return build_page_set(spec, [=](int l, Side s, int64_t p, int64_t h, int64_t t, int64_t c) {
    return (c == p % 3 ? 100.0f : 0.0f) + 0.01f * texture(l, s, p, h, t, c);
  });
}

TEST(Clusters, FindsPlantedGroups) {
  const PageSet set = three_groups();
  ThreadPool pool(1);
  RedundancyOptions options;
  options.clusters = 3;
  const RedundancyResult result = analyze_redundancy(set, options, pool);
  const ClusterRow& row = result.clusters.back();
  EXPECT_EQ(row.k, 3);
  EXPECT_EQ(row.rule, "asked for");
  EXPECT_THAT(row.sizes, ::testing::ElementsAre(10, 10, 10));
  EXPECT_GT(row.explained, 0.9999);
  EXPECT_LT(row.explained_shuffled, row.explained);
  EXPECT_LT(row.relative_error, 1e-3);
  EXPECT_EQ(row.dense_bytes, 30 * 8 * 4);
  EXPECT_EQ(row.centroid_bytes, 3 * 8 * 4);
  EXPECT_EQ(row.freed_bytes(), 30 * 32 - 3 * 32 - 30 * 4);
  EXPECT_LE(row.distance_median, row.distance_95);
  EXPECT_LE(row.distance_95, row.distance_max);
}

TEST(Clusters, OneClusterLeavesTheTotalVariance) {
  const PageSet set = cover_pages_set();
  ThreadPool pool(1);
  RedundancyOptions options;
  options.clusters = 1;
  for (const ClusterRow& row : analyze_redundancy(set, options, pool).clusters) {
    EXPECT_NEAR(row.explained, 0.0, 1e-5);
    EXPECT_EQ(row.empty, 0);
  }
}

TEST(Clusters, OnADeviceAsOnTheHost) {
  const PageSet set = build_page_set({.kv_heads = 2, .sets = {{40, 23}}}, textured_values(17));
  ThreadPool pool(2);
  RedundancyOptions options;
  options.clusters = 5;
  const auto on_host = analyze_redundancy(set, options, pool).clusters;
  const std::shared_ptr<Backend> device = make_device_backend(make_lane_device());
  options.device = device;
  const auto on_device = analyze_redundancy(set, options, pool).clusters;
  EXPECT_GT(device->peak_bytes(), 0);
  EXPECT_EQ(device->allocated_bytes(), 0);
  ASSERT_EQ(on_device.size(), on_host.size());
  for (std::size_t r = 0; r < on_host.size(); ++r) {
    EXPECT_EQ(on_device[r].sizes, on_host[r].sizes);
    EXPECT_NEAR(on_device[r].inertia, on_host[r].inertia, 1e-5 * on_host[r].inertia);
    EXPECT_NEAR(on_device[r].distance_median, on_host[r].distance_median, 1e-5);
  }
}

// As they lie and with their tokens reordered; tokens of 2 to 12 bytes.
TEST(Duplicates, OnADeviceAsOnTheHost) {
  const auto device = make_device_backend(make_lane_device());
  for (const int64_t token_bytes : {2, 6, 12, 70})
    for (const int64_t groups : {1, 2, 9, 33, 65, 130}) {
      constexpr int64_t kHeads = 2, kTokens = 3;
      const int64_t page_bytes = kTokens * token_bytes;
      std::vector<std::byte> stored(static_cast<std::size_t>(groups * kHeads * page_bytes));
      // Few different pages, some of them different in their last byte only.
      for (std::size_t at = 0; at < stored.size(); ++at) {
        const auto page = static_cast<int64_t>(at) / page_bytes;
        const bool last = static_cast<int64_t>(at) % page_bytes == page_bytes - 1;
        stored[at] = static_cast<std::byte>(last ? page % 7 : page % 5 * 31 + page % 3);
      }
      std::vector<int64_t> order(static_cast<std::size_t>(groups * kTokens));
      std::iota(order.begin(), order.end(), 0);
      std::reverse(order.begin(), order.end());
      for (const int64_t* by :
           {static_cast<const int64_t*>(nullptr), static_cast<const int64_t*>(order.data())}) {
        const PageTokens pages{stored.data(), kHeads, kTokens, token_bytes, by};
        const auto fetch = [&](int64_t page, std::byte* buffer) -> const std::byte* {
          for (int64_t t = 0; t < kTokens; ++t)
            std::copy_n(pages.token(page, t), token_bytes, buffer + t * token_bytes);
          return buffer;
        };
        EXPECT_EQ(count_duplicates_on_device(pages, groups, *device),
                  count_duplicates(groups * kHeads, page_bytes, fetch))
            << groups << " groups, " << token_bytes << " bytes";
      }
    }
}

TEST(Clusters, NotEnoughMemoryOfADeviceIsSaid) {
  const PageSet set = build_page_set({.kv_heads = 2, .sets = {{200}}}, textured_values(17));
  ThreadPool pool(1);
  RedundancyOptions options;
  options.device = make_device_backend(make_lane_device(4096));
  EXPECT_THROW(
      {
        try {
          (void)analyze_redundancy(set, options, pool);
        } catch (const InputError& error) {
          EXPECT_THAT(error.what(), ::testing::HasSubstr("pages to compare"));
          throw;
        }
      },
      InputError);
}

TEST(Clusters, RuleIsTheSquareRoot) {
  EXPECT_EQ(cluster_count(700, 0), 27);
  EXPECT_EQ(cluster_count(2, 0), 2);
  EXPECT_EQ(cluster_count(5, 9), 5);
}

TEST(Growth, CountsPagesWithAnEarlierPartnerInTheirPrompt) {
  PageSetSpec spec;
  spec.head_dim = 16;
  spec.sets = {{4, 2}};
  const PageValue texture = textured_values(4);
  // Both prompts repeat their first page as their second; other pages are their own.
  const PageSet set = build_page_set(spec, [&](int l, Side s, int64_t p, int64_t h, int64_t t, int64_t c) {
    const int64_t like = p == 1 ? 0 : p == 5 ? 4 : p;
    return texture(l, s, like + 100, h, t, c) + 2.0f * static_cast<float>((like * 7 + t * 5 + c * 3) % 11);
  });
  ThreadPool pool(1);
  const RedundancyResult result = analyze_redundancy(set, {}, pool);
  const GrowthRow& row = result.growth.back();
  EXPECT_EQ(row.set, "set0");
  EXPECT_THAT(row.context_tokens, ::testing::ElementsAre(2, 4, 6, 8));
  EXPECT_EQ(row.redundancy[0], 0.0) << "the first page has no earlier one";
  EXPECT_EQ(row.redundancy[1], 0.5) << "2 of 4 pages";
  EXPECT_NEAR(row.redundancy[3], 2.0 / 6.0, 1e-12);
}

TEST(SetDifferences, FindsAPlantedDifferenceAndNoneWhereThereIsNone) {
  const std::vector<double> high = {0.8, 0.82, 0.79, 0.81, 0.8, 0.83};
  const std::vector<double> low = {0.5, 0.52, 0.48, 0.51, 0.5};
  const Estimate found = bootstrap_difference(high, low, 2000, 1);
  EXPECT_NEAR(found.value, 0.80833333 - 0.502, 1e-6);
  EXPECT_GT(found.low, 0.25);
  EXPECT_LT(found.high, 0.35);
  const Estimate none = bootstrap_difference(low, low, 2000, 1);
  EXPECT_LT(none.low, 0.0);
  EXPECT_GT(none.high, 0.0);
  EXPECT_EQ(bootstrap_difference(high, low, 2000, 1).low, found.low) << "seeded";
}

// The interval of two sample means is known: its half width is 1.96 standard errors of the difference.
TEST(SetDifferences, IntervalHasTheWidthOfTheNormalApproximation) {
  SeededRandom random(1, 1);
  std::vector<double> a, b;
  for (int k = 0; k < 200; ++k) {
    a.push_back(static_cast<double>(random.next() >> 11) / 9007199254740992.0);
    b.push_back(static_cast<double>(random.next() >> 11) / 9007199254740992.0);
  }
  const Estimate interval = bootstrap_difference(a, b, 10000, 3);
  const double standard_error = std::sqrt(2.0 / 12.0 / 200.0);
  EXPECT_NEAR((interval.high - interval.low) / 2, 1.96 * standard_error, 0.15 * 1.96 * standard_error);
}

TEST(SetDifferences, RowsSayWhichSetIsHigher) {
  PageSetSpec spec;
  spec.head_dim = 16;
  spec.layers = 2;
  spec.sets = {{6, 6, 6}, {6, 6, 6}, {6}};
  const PageValue texture = textured_values(4);
  // Pages of a prompt of the first set are nearly alike.
  const PageSet set = build_page_set(spec, [&](int l, Side s, int64_t p, int64_t h, int64_t t, int64_t c) {
    const float own = texture(l, s, 3 * p + 1, h, t, c);
    return p < 18 ? texture(l, s, 1000 + p / 6, h, t, c) + 0.02f * own : own;
  });
  ThreadPool pool(2);
  const RedundancyResult result = analyze_redundancy(set, {}, pool);
  EXPECT_EQ(result.set_differences.size(), 2u * 5u * 2u) << "the third set has one prompt only";
  for (const SetDifferenceRow& row : result.set_differences) {
    EXPECT_EQ(row.a, "set0");
    EXPECT_EQ(row.b, "set1");
    EXPECT_EQ(row.prompts_a, 3);
    EXPECT_LE(row.low, row.difference);
    EXPECT_GE(row.high, row.difference);
    if (row.statistic == "mean" && row.metric != Metric::kCosine) {
      EXPECT_EQ(row.verdict, "higher");
    }
  }
}

TEST(Norms, OutlierChannelsAndRatio) {
  PageSetSpec spec;
  spec.kv_heads = 2;
  spec.head_dim = 8;
  spec.sets = {{6}};
  const PageSet set =
      build_page_set(spec, [](int, Side side, int64_t, int64_t head, int64_t, int64_t channel) {
        if (side == Side::kValue) return 0.5f;
        return head == 1 && channel == 3 ? -20.0f : 1.0f;
      });
  ThreadPool pool(1);
  const NormRow row = analyze_redundancy(set, {}, pool).norms[0];
  EXPECT_NEAR(row.k_norm, (std::sqrt(8.0) + std::sqrt(407.0)) / 2, 1e-5);
  EXPECT_NEAR(row.v_norm, std::sqrt(2.0), 1e-6);
  EXPECT_EQ(row.k_outlier_channels, 1);
  EXPECT_EQ(row.v_outlier_channels, 0);
}

}  // namespace
}  // namespace kva
