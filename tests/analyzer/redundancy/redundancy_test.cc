#include "analyzer/redundancy/redundancy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "analyzer/redundancy/grouping.h"
#include "runtime/error.h"
#include "tests/analyzer/redundancy/naive_similarity.h"
#include "tests/analyzer/redundancy/page_set_builder.h"

namespace kva {
namespace {

PageSetSpec textured_spec() {
  PageSetSpec spec;
  spec.layers = 2;
  spec.kv_heads = 2;
  spec.head_dim = 6;
  spec.page_tokens = 4;
  spec.dtype = DType::kF16;
  spec.rope = true;
  spec.sets = {{5, 3, 4}, {2, 6}, {7, 1, 5}};
  return spec;
}

PageSet textured_pages() { return build_page_set(textured_spec(), textured_values(11)); }

const SimilarityRow& find_row(const RedundancyResult& result, int layer, SideBasis side, int head,
                              Metric metric, const std::string& group) {
  for (const SimilarityRow& row : result.similarity)
    if (row.layer == layer && row.side == side && row.head == head && row.metric == metric &&
        row.group == group)
      return row;
  throw std::logic_error("no such row");
}

// Every number of the real pairs of a row against all pairs one by one.
void expect_row(const SimilarityRow& row, const NaiveScope& naive, std::size_t first, std::size_t last,
                const std::vector<double>& thresholds) {
  std::vector<double> values;
  std::vector<double> best(last - first, -2.0);
  for (std::size_t i = first; i < last; ++i)
    for (std::size_t j = i + 1; j < last; ++j) {
      const double value = naive.similarity(row.metric, i, j);
      values.push_back(value);
      best[i - first] = std::max(best[i - first], value);
      best[j - first] = std::max(best[j - first], value);
    }
  SCOPED_TRACE(std::string(metric_name(row.metric)) + " " + row.group + " head " + std::to_string(row.head));
  ASSERT_EQ(row.real.pairs, static_cast<int64_t>(values.size()));
  double mean = 0.0;
  for (const double value : values) mean += value / static_cast<double>(values.size());
  double variance = 0.0;
  for (const double value : values)
    variance += (value - mean) * (value - mean) / static_cast<double>(values.size());
  EXPECT_NEAR(row.real.mean, mean, 1e-5);
  EXPECT_NEAR(row.real.std, std::sqrt(variance), 1e-5);
  for (std::size_t t = 0; t < thresholds.size(); ++t) {
    const auto over = [&](double value) { return value > double{static_cast<float>(thresholds[t])}; };
    EXPECT_NEAR(row.real.share_over[t],
                static_cast<double>(std::count_if(values.begin(), values.end(), over)) /
                    static_cast<double>(values.size()),
                1e-12);
    EXPECT_NEAR(
        row.real.redundancy[t],
        static_cast<double>(std::count_if(best.begin(), best.end(), over)) / static_cast<double>(best.size()),
        1e-12);
  }
  std::sort(values.begin(), values.end());
  for (std::size_t k = 0; k < kPercentiles.size(); ++k) {
    // Any convention between the neighbouring values, plus the width of a bin.
    const double at = kPercentiles[k] / 100.0 * static_cast<double>(values.size());
    const std::size_t low = static_cast<std::size_t>(std::max(0.0, std::floor(at) - 1.0));
    const std::size_t high = std::min(values.size() - 1, static_cast<std::size_t>(std::ceil(at)));
    EXPECT_GE(row.real.percentiles[k], values[low] - 6e-4);
    EXPECT_LE(row.real.percentiles[k], values[high] + 6e-4);
  }
  if (!row.real.histogram.empty()) {
    EXPECT_EQ(std::accumulate(row.real.histogram.begin(), row.real.histogram.end(), int64_t{0}),
              row.real.pairs);
  }
}

class EverySide : public ::testing::TestWithParam<std::tuple<KeyBasis, bool>> {};

TEST_P(EverySide, MatchesNaivePairs) {
  PageSetSpec spec = textured_spec();
  spec.key_basis = std::get<0>(GetParam());
  spec.rope = std::get<1>(GetParam());
  const PageSet set = build_page_set(spec, textured_values(11));
  ThreadPool pool(2);
  const RedundancyResult result = analyze_redundancy(set, {}, pool);
  const Grouping grouping = group_pages(set);
  const std::vector<SideBasis> sides = sides_of(set);
  EXPECT_EQ(sides.size(), spec.rope ? 3u : 2u);
  EXPECT_EQ(result.similarity.size(), 2u * sides.size() * 5u * (1u + 2u + 3u));
  for (const SideBasis side : sides)
    for (int layer = 0; layer < 2; ++layer)
      for (const int head : {kJoinedHeads, 0, 1}) {
        const NaiveScope naive(set, layer, side, head);
        for (int m = 0; m < kMetrics; ++m) {
          const Metric metric = static_cast<Metric>(m);
          expect_row(find_row(result, layer, side, head, metric, "all"), naive, 0, set.pages.size(),
                     result.options.thresholds);
          if (head != kJoinedHeads) continue;
          for (std::size_t s = 0; s < grouping.sets.size(); ++s)
            expect_row(find_row(result, layer, side, head, metric, grouping.set_names[s]), naive,
                       static_cast<std::size_t>(grouping.sets[s].first),
                       static_cast<std::size_t>(grouping.sets[s].last), result.options.thresholds);
        }
      }
}
INSTANTIATE_TEST_SUITE_P(Bases, EverySide,
                         ::testing::Values(std::tuple{KeyBasis::kRotated, true},
                                           std::tuple{KeyBasis::kPlain, true},
                                           std::tuple{KeyBasis::kPageRelative, true},
                                           std::tuple{KeyBasis::kRotated, false}));

TEST(Redundancy, HandComputedPages) {
  // One head of one channel, two tokens a page: pages (1, 2), (1, 2), (-1, 2), (-4, -3); channel mean 0.
  PageSetSpec spec;
  spec.head_dim = 1;
  const float numbers[4][2] = {{1, 2}, {1, 2}, {-1, 2}, {-4, -3}};
  const PageSet set = build_page_set(
      spec, [&](int, Side, int64_t page, int64_t, int64_t token, int64_t) { return numbers[page][token]; });
  ThreadPool pool(1);
  const RedundancyResult result = analyze_redundancy(set, {}, pool);
  const auto row = [&](Metric metric) {
    return find_row(result, 0, SideBasis::kValue, kJoinedHeads, metric, "all");
  };
  // Pairs 01, 02, 03, 12, 13, 23.
  const double d = std::sqrt(125.0);
  EXPECT_NEAR(row(Metric::kCosine).real.mean, (1.0 + 2 * 0.6 - 2 * 10.0 / d - 2.0 / d) / 6, 1e-6);
  EXPECT_NEAR(row(Metric::kCosineCentered).real.mean, row(Metric::kCosine).real.mean, 1e-6)
      << "the mean is 0";
  // Distances 0, 2, sqrt(50), 2, sqrt(50), sqrt(34); larger norms sqrt(5) or 5.
  const double l2 =
      (1.0 + 2 * (1 - 2 / std::sqrt(5.0)) + 2 * (1 - std::sqrt(50.0) / 5) + (1 - std::sqrt(34.0) / 5)) / 6;
  EXPECT_NEAR(row(Metric::kL2).real.mean, l2, 1e-6);
  EXPECT_NEAR(row(Metric::kL2).l2_mean, (4 + 2 * std::sqrt(50.0) + std::sqrt(34.0)) / 6, 1e-5);
  // Signs ++, ++, -+, --: differing 0, 1, 2, 1, 2, 1 of 2.
  EXPECT_NEAR(row(Metric::kHamming).real.mean, (1 + 0.5 + 0 + 0.5 + 0 + 0.5) / 6, 1e-7);
  // A quarter of 2 is one index: token 1, 1, 1, 0.
  EXPECT_NEAR(row(Metric::kJaccard).real.mean, 0.5, 1e-7);
  EXPECT_NEAR(row(Metric::kCosine).real.share_over[0], 1.0 / 6, 1e-12);
  EXPECT_NEAR(row(Metric::kCosine).real.redundancy[3], 0.5, 1e-12) << "pages 0 and 1";
  EXPECT_NEAR(row(Metric::kCosine).real.percentiles.back(), 1.0, 5e-4) << "one bin";
}

TEST(Redundancy, IdenticalPagesAreExactlyAlike) {
  PageSetSpec spec;
  spec.kv_heads = 2;
  spec.head_dim = 8;
  spec.page_tokens = 4;
  spec.sets = {{300}};  // several tiles
  const PageSet set = build_page_set(spec, [](int, Side, int64_t, int64_t h, int64_t t, int64_t c) {
    return 0.37f * static_cast<float>(h + 1) + std::sin(static_cast<float>(t * 8 + c));
  });
  ThreadPool pool(2);
  const RedundancyResult result = analyze_redundancy(set, {}, pool);
  for (const SimilarityRow& row : result.similarity) {
    EXPECT_EQ(row.real.percentiles.front(), 1.0) << metric_name(row.metric);
    EXPECT_EQ(row.real.std, 0.0);
    EXPECT_EQ(row.real.redundancy.back(), 1.0);
    EXPECT_EQ(row.l2_mean, 0.0);
  }
}

TEST(Redundancy, ZeroPagesGiveNoNaN) {
  PageSetSpec spec;
  spec.layers = 2;
  spec.sets = {{3}, {1}, {4}};
  const PageSet set = build_page_set(
      spec, [](int, Side, int64_t page, int64_t, int64_t, int64_t) { return page == 5 ? 1.0f : 0.0f; });
  ThreadPool pool(1);
  const RedundancyResult result = analyze_redundancy(set, {}, pool);
  for (const SimilarityRow& row : result.similarity)
    for (const PairSummary* summary : {&row.real, &row.random, &row.shuffled}) {
      EXPECT_TRUE(std::isfinite(summary->mean) && std::isfinite(summary->std));
      EXPECT_GE(summary->mean, -1.0);
      EXPECT_LE(summary->mean, 1.0);
    }
  EXPECT_EQ(find_row(result, 0, SideBasis::kValue, kJoinedHeads, Metric::kCosine, "all").real.mean, 0.0);
  for (const AdjacentRow& row : result.adjacent_layers) EXPECT_TRUE(std::isfinite(row.real.mean));
  for (const ClusterRow& row : result.clusters)
    EXPECT_TRUE(std::isfinite(row.explained) && std::isfinite(row.relative_error));
  for (const SimilarityRow& row : result.similarity) EXPECT_NE(row.group, "set1") << "one page has no pair";
}

TEST(Redundancy, HugeAndTinyNumbersStayFinite) {
  for (const float scale : {1e37f, 1e-37f}) {
    PageSetSpec spec;
    spec.sets = {{6}};
    const PageValue texture = textured_values(3);
    const PageSet set = build_page_set(spec, [&](int l, Side s, int64_t p, int64_t h, int64_t t, int64_t c) {
      return scale * texture(l, s, p, h, t, c);
    });
    const PageSet plain = build_page_set(spec, texture);
    ThreadPool pool(1);
    const RedundancyResult scaled = analyze_redundancy(set, {}, pool);
    const RedundancyResult expected = analyze_redundancy(plain, {}, pool);
    for (std::size_t r = 0; r < expected.similarity.size(); ++r) {
      EXPECT_NEAR(scaled.similarity[r].real.mean, expected.similarity[r].real.mean, 1e-5);
      EXPECT_NEAR(scaled.similarity[r].l2_mean / double{scale}, expected.similarity[r].l2_mean, 1e-4);
    }
  }
}

TEST(Redundancy, TheSameBitsAtAnyThreadCount) {
  PageSetSpec spec = textured_spec();
  spec.sets = {{90, 60}, {80, 70}, {100}};  // 400 pages: several tiles each way
  const PageSet set = build_page_set(spec, textured_values(5));
  ThreadPool one(1);
  ThreadPool three(3);
  const RedundancyResult a = analyze_redundancy(set, {}, one);
  const RedundancyResult b = analyze_redundancy(set, {}, three);
  ASSERT_EQ(a.similarity.size(), b.similarity.size());
  const auto same = [](const PairSummary& x, const PairSummary& y) {
    return x.mean == y.mean && x.std == y.std && x.percentiles == y.percentiles &&
           x.share_over == y.share_over && x.redundancy == y.redundancy && x.histogram == y.histogram;
  };
  for (std::size_t r = 0; r < a.similarity.size(); ++r) {
    EXPECT_TRUE(same(a.similarity[r].real, b.similarity[r].real));
    EXPECT_TRUE(same(a.similarity[r].random, b.similarity[r].random));
    EXPECT_TRUE(same(a.similarity[r].shuffled, b.similarity[r].shuffled));
    EXPECT_EQ(a.similarity[r].l2_mean, b.similarity[r].l2_mean);
  }
  for (std::size_t r = 0; r < a.adjacent_layers.size(); ++r)
    EXPECT_TRUE(same(a.adjacent_layers[r].shuffled, b.adjacent_layers[r].shuffled));
  for (std::size_t r = 0; r < a.layer_matrix.size(); ++r)
    EXPECT_EQ(a.layer_matrix[r].values, b.layer_matrix[r].values);
  for (std::size_t r = 0; r < a.heatmaps.size(); ++r) EXPECT_EQ(a.heatmaps[r].data, b.heatmaps[r].data);
  for (std::size_t r = 0; r < a.clusters.size(); ++r) {
    EXPECT_EQ(a.clusters[r].inertia, b.clusters[r].inertia);
    EXPECT_EQ(a.clusters[r].sizes, b.clusters[r].sizes);
  }
  for (std::size_t r = 0; r < a.opportunity.size(); ++r)
    EXPECT_EQ(a.opportunity[r].freed_pages, b.opportunity[r].freed_pages);
  for (std::size_t r = 0; r < a.set_differences.size(); ++r)
    EXPECT_EQ(a.set_differences[r].low, b.set_differences[r].low);
  for (std::size_t r = 0; r < a.partners.size(); ++r)
    for (std::size_t k = 0; k < a.partners[r].partners.size(); ++k) {
      EXPECT_EQ(a.partners[r].partners[k].page, b.partners[r].partners[k].page);
      EXPECT_EQ(a.partners[r].partners[k].similarity, b.partners[r].partners[k].similarity);
    }
}

TEST(Redundancy, PartnersAreTheNearestPages) {
  const PageSet set = textured_pages();
  ThreadPool pool(2);
  const RedundancyResult result = analyze_redundancy(set, {}, pool);
  const NaiveScope naive(set, 1, SideBasis::kKeyPlain, kJoinedHeads);
  const auto table = std::find_if(result.partners.begin(), result.partners.end(), [](const PartnerTable& t) {
    return t.layer == 1 && t.side == SideBasis::kKeyPlain;
  });
  ASSERT_NE(table, result.partners.end());
  for (std::size_t p = 0; p < set.pages.size(); ++p) {
    std::vector<double> all;
    for (std::size_t q = 0; q < set.pages.size(); ++q)
      if (q != p) all.push_back(naive.similarity(Metric::kCosineCentered, p, q));
    std::sort(all.rbegin(), all.rend());
    for (std::size_t k = 0; k < 4; ++k) {
      const Partner& partner = table->partners[p * 4 + k];
      EXPECT_NEAR(partner.similarity, all[k], 1e-5);
      EXPECT_NEAR(naive.similarity(Metric::kCosineCentered, p, static_cast<std::size_t>(partner.page)),
                  all[k], 1e-5);
    }
  }
}

TEST(Redundancy, AdjacentLayersAndMatrixMatchNaive) {
  const PageSet set = textured_pages();
  ThreadPool pool(2);
  const RedundancyResult result = analyze_redundancy(set, {}, pool);
  EXPECT_EQ(result.adjacent_layers.size(), 3u * 3u * 5u);
  for (const AdjacentRow& row : result.adjacent_layers) {
    const NaiveScope below(set, 0, row.side, row.head);
    const NaiveScope above(set, 1, row.side, row.head);
    double mean = 0.0;
    for (std::size_t p = 0; p < set.pages.size(); ++p)
      mean += below.against(row.metric, p, above, p) / static_cast<double>(set.pages.size());
    EXPECT_NEAR(row.real.mean, mean, 1e-5) << metric_name(row.metric);
    if (row.metric == Metric::kCosineCentered && row.head == kJoinedHeads)
      for (const LayerMatrix& matrix : result.layer_matrix)
        if (matrix.side == row.side) {
          EXPECT_NEAR(matrix.values[0], 1.0, 1e-5);
          EXPECT_NEAR(matrix.values[1], mean, 1e-5);
          EXPECT_EQ(matrix.values[1], matrix.values[2]);
        }
  }
}

TEST(Redundancy, ShufflingTokensDestroysPageStructure) {
  PageSetSpec spec;
  spec.head_dim = 16;
  spec.page_tokens = 8;
  spec.sets = {{20, 20}};
  // All pages the same sequence of quite different tokens.
  const PageSet set = build_page_set(spec, [](int, Side, int64_t, int64_t, int64_t token, int64_t channel) {
    return std::sin(static_cast<float>(token * token * 31 + channel * (token + 1)));
  });
  ThreadPool pool(2);
  const RedundancyResult result = analyze_redundancy(set, {}, pool);
  const SimilarityRow& row =
      find_row(result, 0, SideBasis::kValue, kJoinedHeads, Metric::kCosineCentered, "all");
  EXPECT_EQ(row.real.mean, 1.0);
  EXPECT_EQ(row.random.mean, 1.0) << "any two pages are alike";
  EXPECT_LT(row.shuffled.mean, 0.3);
  EXPECT_EQ(row.random.pairs, 40);
  EXPECT_EQ(row.shuffled.pairs, row.real.pairs);
}

TEST(Controls, OrdersArePermutationsAndPartnersOthers) {
  const Grouping grouping = group_pages(textured_pages());
  const ControlOrders orders = draw_controls(grouping, 4, 42);
  const std::set<int64_t> everywhere(orders.everywhere.begin(), orders.everywhere.end());
  EXPECT_EQ(everywhere.size(), orders.everywhere.size());
  const std::set<int64_t> within(orders.within_sets.begin(), orders.within_sets.end());
  EXPECT_EQ(within.size(), orders.within_sets.size());
  int64_t moved_across = 0;
  for (int64_t p = 0; p < grouping.pages(); ++p) {
    const std::size_t page = static_cast<std::size_t>(p);
    EXPECT_NE(orders.partner[page], p);
    EXPECT_NE(orders.partner_in_set[page], p);
    EXPECT_EQ(grouping.set_of_page[static_cast<std::size_t>(orders.partner_in_set[page])],
              grouping.set_of_page[page]);
    for (std::size_t k = page * 4; k < page * 4 + 4; ++k) {
      EXPECT_EQ(grouping.set_of_page[static_cast<std::size_t>(orders.within_sets[k] / 4)],
                grouping.set_of_page[page]);
      moved_across += grouping.set_of_page[static_cast<std::size_t>(orders.everywhere[k] / 4)] !=
                      grouping.set_of_page[page];
    }
  }
  EXPECT_GT(moved_across, 0);
  EXPECT_EQ(draw_controls(grouping, 4, 42).everywhere, orders.everywhere);
  EXPECT_NE(draw_controls(grouping, 4, 43).everywhere, orders.everywhere);
}

TEST(Redundancy, KeysKeepTheirNormsUnderRoPE) {
  PageSetSpec spec = textured_spec();
  const RedundancyOptions options;
  ThreadPool pool(1);
  std::vector<double> norms;
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain}) {
    spec.key_basis = basis;
    const RedundancyResult result =
        analyze_redundancy(build_page_set(spec, textured_values(11)), options, pool);
    norms.push_back(result.norms[0].k_norm);
  }
  EXPECT_NEAR(norms[0], norms[1], 1e-4);
}

void expect_refused(const PageSet& set, const RedundancyOptions& options, const std::string& words) {
  ThreadPool pool(1);
  try {
    analyze_redundancy(set, options, pool);
    FAIL() << "expected an error with: " << words;
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr(words));
    EXPECT_THAT(error.what(), ::testing::Not(::testing::HasSubstr("\n")));
  }
}

TEST(Redundancy, RefusesBadPagesByName) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    PageSetSpec spec;
    spec.layers = 3;
    const PageSet set =
        build_page_set(spec, [&](int layer, Side side, int64_t page, int64_t, int64_t token, int64_t c) {
          return layer == 2 && side == Side::kValue && page == 3 && token == 1 && c == 2 ? bad : 1.0f;
        });
    expect_refused(set, {}, "layer 2 V page 3");
  }
}

TEST(Redundancy, RefusesTooFewPagesAndBadOptions) {
  PageSetSpec spec;
  spec.sets = {{1}};
  const auto one = [](int, Side, int64_t, int64_t, int64_t, int64_t) { return 1.0f; };
  expect_refused(build_page_set(spec, one), {}, "longer prompts");
  spec.sets = {{4}};
  const PageSet set = build_page_set(spec, one);
  RedundancyOptions options;
  options.thresholds = {0.9, 0.8};
  expect_refused(set, options, "thresholds");
  options = {};
  options.jaccard_share = std::numeric_limits<double>::quiet_NaN();
  expect_refused(set, options, "jaccard_share");
  options = {};
  options.memory_limit_bytes = 1000;
  expect_refused(set, options, "memory");
  PageSet disordered = set;
  disordered.pages[0].prompt = 7;
  expect_refused(disordered, {}, "order");
}

TEST(Redundancy, ReportsProgressToTheEndAndStopsWhenAsked) {
  const PageSet set = textured_pages();
  ThreadPool pool(1);
  int64_t last = 0;
  int64_t total = 0;
  int estimates = 0;
  const auto progress = [&](int64_t done, int64_t all, std::string_view) {
    EXPECT_GE(done, last);
    last = done;
    total = all;
  };
  const RedundancyResult result = analyze_redundancy(set, {}, pool, progress, [&](double seconds) {
    EXPECT_EQ(last, 0) << "before any pair";
    EXPECT_GT(seconds, 0.0);
    ++estimates;
  });
  EXPECT_EQ(last, total);
  EXPECT_EQ(total, result.pairs);
  EXPECT_EQ(estimates, 1);
  EXPECT_THROW(
      analyze_redundancy(set, {}, pool, [](int64_t, int64_t, std::string_view) { throw Interrupted(); }),
      Interrupted);
}

}  // namespace
}  // namespace kva
