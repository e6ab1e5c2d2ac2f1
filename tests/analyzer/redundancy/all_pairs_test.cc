#include "analyzer/redundancy/all_pairs.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>

#include "kernels/onednn_product.h"
#include "tests/analyzer/redundancy/page_set_builder.h"

namespace kva {
namespace {

PageMatrix matrix_of(const PageSet& set, ThreadPool& pool) {
  RawPages raw = load_pages(set, 0, SideBasis::kValue, pool);
  const std::vector<float> means = channel_means(raw, pool);
  return PageMatrix(std::move(raw), means, 0.25, pool);
}

// Random pages off their channels' means; page 1 is nearly page 0, page 3 is page 2, page 5 is zeros.
PageSet pages_with_twins(int64_t pages) {
  PageSetSpec spec;
  spec.kv_heads = 2;
  spec.head_dim = 16;
  spec.page_tokens = 8;
  spec.sets = {{pages}};
  const PageValue texture = textured_values(5);
  return build_page_set(spec, [=](int layer, Side side, int64_t page, int64_t h, int64_t t, int64_t c) {
    if (page == 5) return 0.0f;
    const float offset = 0.5f * static_cast<float>(c % 3);
    const float value = offset + texture(layer, side, page == 1 ? 0 : page == 3 ? 2 : page, h, t, c);
    return page == 1 ? value * 1.01f : value;
  });
}

TEST(Bf16Products, AreWithinTheErrorTheyState) {
  if (!multiplies_bf16()) GTEST_SKIP() << "no bf16 products here";
  ThreadPool pool(2);
  const PageSet set = pages_with_twins(300);
  PageMatrix pages = matrix_of(set, pool);
  EXPECT_FALSE(pages.rounds_products());
  EXPECT_EQ(pages.product_error().centred, 0.0);
  pages.round_products(pool);
  const ProductError& error = pages.product_error();
  EXPECT_GT(error.centred, 1e-3);
  EXPECT_LT(error.centred, 2 * 0x1p-8 + 1e-4) << "twice the rounding of bf16";
  PairTile tile(pages, MetricSet::all(), true);
  double largest = 0.0;
  for (const TileRange& range : {TileRange{0, 256, 0, 256}, TileRange{0, 256, 256, 44}}) {
    tile.begin(range);
    for (int head = 0; head < 2; ++head) tile.add_head(head);
    tile.join();
    for (int64_t r = 0; r < range.rows; ++r) {
      tile.read_row(kJoinedHeads, r, 0, range.columns);
      for (int64_t j = 0; j < range.columns; ++j) {
        const ExactSimilarity exact =
            exact_similarity(pages, range.row + r, pages, range.column + j, kJoinedHeads);
        const double centred = std::abs(double{tile.values(Metric::kCosineCentered)[j]} - exact.centred);
        ASSERT_LE(centred, error.centred + 1e-6);
        ASSERT_NEAR(tile.values(Metric::kCosine)[j], exact.cosine, error.cosine + 1e-6);
        ASSERT_NEAR(tile.values(Metric::kL2)[j], exact.l2, error.l2 + 2e-5) << range.row + r << " " << j;
        largest = std::max(largest, centred);
      }
    }
  }
  EXPECT_GT(largest, 1e-5) << "something was rounded";
}

TEST(Bf16Products, FindEqualPagesExactly) {
  if (!multiplies_bf16()) GTEST_SKIP() << "no bf16 products here";
  ThreadPool pool(1);
  PageMatrix pages = matrix_of(pages_with_twins(20), pool);
  pages.round_products(pool);
  PairTile tile(pages, {Metric::kCosineCentered, Metric::kL2}, false);
  tile.begin({0, 20, 0, 20});
  for (int head = 0; head < 2; ++head) tile.add_head(head);
  tile.join();
  tile.read_row(kJoinedHeads, 2, 0, 20);
  EXPECT_EQ(tile.values(Metric::kL2)[3], 1.0f);
  EXPECT_FLOAT_EQ(tile.values(Metric::kCosineCentered)[3], 1.0f);
  tile.read_row(kJoinedHeads, 0, 0, 20);
  EXPECT_NEAR(tile.values(Metric::kL2)[1], 1.0f - 0.01f / 1.01f, 1e-6);
}

TEST(Bf16Products, OfAnAnalysisAreSaidAndBitEqualAtAnyThreads) {
  const PageSet set = pages_with_twins(300);
  RedundancyOptions options;
  options.products = DType::kBF16;
  ThreadPool one(1), three(3);
  const RedundancyResult a = analyze_redundancy(set, options, one);
  const RedundancyResult b = analyze_redundancy(set, options, three);
  const RedundancyResult exact = analyze_redundancy(set, {}, one);
  EXPECT_EQ(exact.products, DType::kF32);
  EXPECT_EQ(exact.product_error.centred, 0.0);
  EXPECT_EQ(a.products, multiplies_bf16() ? DType::kBF16 : DType::kF32);
  EXPECT_EQ(a.product_error.centred > 0.0, multiplies_bf16());
  ASSERT_EQ(a.similarity.size(), exact.similarity.size());
  for (std::size_t i = 0; i < a.similarity.size(); ++i) {
    EXPECT_EQ(a.similarity[i].real.mean, b.similarity[i].real.mean);
    EXPECT_EQ(a.similarity[i].real.std, b.similarity[i].real.std);
    const double allowed = std::max({a.product_error.cosine, a.product_error.centred, a.product_error.l2});
    EXPECT_NEAR(a.similarity[i].real.mean, exact.similarity[i].real.mean, allowed + 1e-6);
  }
}

TEST(AllPairs, TellHowFarTheyAre) {
  ThreadPool pool(2);
  const PageSet set = pages_with_twins(700);
  const PageMatrix pages = matrix_of(set, pool);
  const Grouping grouping = group_pages(set);
  const std::vector<float> thresholds = {0.9f};
  PairPlan plan;
  plan.thresholds = thresholds;
  int64_t last = 0;
  compare_all_pairs(pages, grouping, plan, pool, [&](int64_t done) {
    EXPECT_GE(done, last);
    last = done;
  });
  EXPECT_EQ(last, 700 * 699 / 2);
  EXPECT_GT(estimated_seconds(pages, grouping, plan, pool), 0.0);
}

// One layer of `pages` pages of 1,024 numbers without values.
PageSet shape_only(int64_t pages) {
  PageSet set;
  set.layers = 1;
  set.kv_heads = 1;
  set.head_dim = 64;
  set.page_tokens = 16;
  set.prompts.push_back({"set", "prompt", pages * 16, pages, 0});
  for (int64_t page = 0; page < pages; ++page) set.pages.push_back({0, page * 16});
  return set;
}

TEST(Memory, OfManyPagesGrowsWithTheirNumberAlone) {
  constexpr int64_t kGiB = int64_t{1} << 30;
  EXPECT_LT(redundancy_memory_bytes(shape_only(100000), {}, 2), 2 * kGiB);
  const int64_t some = redundancy_memory_bytes(shape_only(20000), {}, 2);
  EXPECT_LE(redundancy_memory_bytes(shape_only(40000), {}, 2), 2 * some);
  RedundancyOptions rounded;
  rounded.products = DType::kBF16;
  EXPECT_EQ(redundancy_memory_bytes(shape_only(20000), rounded, 2) - some, 3 * 20000 * 1024 * 2);
}

int64_t status_bytes(const std::string& field) {
  std::ifstream file("/proc/self/status");
  std::string line;
  while (std::getline(file, line))
    if (line.rfind(field, 0) == 0) return std::atoll(line.c_str() + field.size() + 1) * 1024;
  return 0;
}

TEST(Memory, StaysWithinItsBound) {
  PageSetSpec spec;
  spec.head_dim = 64;
  spec.page_tokens = 16;
  spec.sets = {{6000}};
  uint32_t state = 1;
  const PageSet set = build_page_set(spec, [&](int, Side, int64_t, int64_t, int64_t, int64_t) {
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
  });
  ThreadPool pool(2);
  RedundancyOptions options;
  options.per_head = false;
  // Forgets the peak so far.
  if (!(std::ofstream("/proc/self/clear_refs") << "5").flush()) GTEST_SKIP() << "peaks cannot be reset here";
  const int64_t before = status_bytes("VmRSS:");
  analyze_redundancy(set, options, pool);
  constexpr int64_t kLibraries = int64_t{24} << 20;  // code that oneDNN and FAISS make or touch first
  EXPECT_LT(status_bytes("VmHWM:") - before,
            redundancy_memory_bytes(set, options, pool.threads()) + kLibraries);
}

}  // namespace
}  // namespace kva
