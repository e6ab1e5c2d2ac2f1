// Maps of attention against softmax weights in double, summed over the same blocks.
#include <gtest/gtest.h>

#include <limits>

#include "tests/runtime/kv/cache_fixture.h"
#include "tests/runtime/kv/rewriting.h"

namespace kva {
namespace {

constexpr std::size_t kBins = kAttentionMapBins;
constexpr double kHidden = -std::numeric_limits<double>::infinity();

// [kv_heads][kBins * kBins]
std::vector<std::vector<double>> naive_maps(const CacheShape& shape, const Projections& source, int64_t block,
                                            const NaiveBias& bias = {}) {
  std::vector<std::vector<double>> maps(static_cast<std::size_t>(shape.kv_heads),
                                        std::vector<double>(kBins * kBins));
  naive_weights(shape, source, bias, [&](int64_t h, int64_t t, const std::vector<double>& weights) {
    for (std::size_t s = 0; s < weights.size(); ++s)
      maps[static_cast<std::size_t>(h / shape.group)]
          [static_cast<std::size_t>(t / block) * kBins + s / static_cast<std::size_t>(block)] +=
          weights[s] / shape.group;
  });
  return maps;
}

void expect_maps(const KvCache& cache, SequenceId id, int64_t block,
                 const std::vector<std::vector<double>>& expected, double relative = 2e-5) {
  for (int layer = 0; layer < cache.options().layers; ++layer) {
    for (int head = 0; head < cache.options().kv_heads; ++head) {
      const AttentionMap& map = cache.attention_map(id, layer, head);
      ASSERT_EQ(map.block_tokens(), block);
      ASSERT_EQ(map.cells().size(), kBins * kBins);
      for (std::size_t i = 0; i < kBins * kBins; ++i) {
        const double wanted = expected[static_cast<std::size_t>(head)][i];
        ASSERT_NEAR(map.cells()[i], wanted, relative * (1.0 + wanted))
            << "head " << head << " queries " << i / kBins << " keys " << i % kBins;
      }
    }
  }
}

std::vector<float> cells_of(const KvCache& cache, SequenceId id, int head) {
  const auto cells = cache.attention_map(id, 0, head).cells();
  return {cells.begin(), cells.end()};
}

void expect_honest(const KvCache& cache) {
  const ByteLedger ledger = cache.ledger();
  EXPECT_EQ(ledger.held() + ledger.workspace, cache.backend().allocated_bytes());
}

TEST(AttentionMap, HoldsTheWeightsThemselvesOfAShortSequence) {
  ThreadPool pool(2);
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative}) {
    for (const int group : {1, 3}) {
      const CacheShape shape{.layers = 2, .group = group, .head_dim = 20, .basis = basis};
      const Projections source(shape, 70, 1);
      const auto expected = naive_maps(shape, source, 1);
      for (const int64_t chunk : {1, 4, 17, 70}) {
        CacheDriver driver(shape, pool);
        const SequenceId id = driver.add(source);
        driver.cache.map_attention(id);
        driver.feed(id, chunk);
        expect_maps(driver.cache, id, 1, expected);
        expect_honest(driver.cache);
      }
    }
  }
}

// Blocks grow to 16 tokens in the middle of steps; pages, runs and tiles end elsewhere.
TEST(AttentionMap, FoldsAsTheSequenceGrows) {
  ThreadPool pool(2);
  for (const int page_tokens : {17, 64}) {
    const CacheShape shape{.kv_heads = 2, .group = 3, .head_dim = 20, .page_tokens = page_tokens};
    const Projections source(shape, 1300, 2);
    CacheDriver driver(shape, pool);
    const SequenceId id = driver.add(source);
    driver.cache.map_attention(id);
    for (const int64_t tokens : {100, 28, 1, 2, 500, 1, 5, 600, 3}) driver.step({{id, tokens}});
    driver.feed(id, 1);
    expect_maps(driver.cache, id, 16, naive_maps(shape, source, 16));
    EXPECT_FLOAT_EQ(cells_of(driver.cache, id, 0)[0],
                    static_cast<float>(naive_maps(shape, source, 16)[0][0]));
  }
}

TEST(AttentionMap, BitsDependOnNeitherThreadsNorCompanyNorWhatElseIsAsked) {
  const CacheShape shape{.kv_heads = 3, .group = 3, .head_dim = 64, .type = DType::kF16};
  const Projections a(shape, 1100, 5), b(shape, 333, 6);
  ThreadPool one(1), three(3);
  const auto alone = [&](ThreadPool& pool, bool masses) {
    CacheDriver driver(shape, pool);
    if (masses) driver.cache.observe(0, 2, {.attention_mass = true});
    const SequenceId id = driver.add(a);
    driver.cache.map_attention(id);
    driver.step({{id, 1080}});
    driver.feed(id, 1);
    return cells_of(driver.cache, id, 2);
  };
  const auto expected = alone(one, false);
  EXPECT_EQ(expected, alone(three, false));
  EXPECT_EQ(expected, alone(three, true));
  CacheDriver together(shape, three);
  const SequenceId idb = together.add(b), ida = together.add(a);
  together.cache.map_attention(ida);
  together.step({{idb, 313}, {ida, 1080}});
  for (int i = 0; i < 20; ++i) together.step({{ida, 1}, {idb, 1}});
  EXPECT_EQ(cells_of(together.cache, ida, 2), expected);
}

TEST(AttentionMap, IsWorkspaceAndChangesNothingElse) {
  ThreadPool pool(2);
  const CacheShape shape{.layers = 2, .group = 3, .head_dim = 20};
  const Projections source(shape, 120, 7);
  CacheDriver off(shape, pool), on(shape, pool);
  for (CacheDriver* driver : {&off, &on}) {
    driver->cache.observe(1, 1, {.attention_mass = true});
    const SequenceId id = driver->add(source);
    if (driver == &on) driver->cache.map_attention(id);
    driver->step({{id, 100}});
    driver->feed(id, 1);
    expect_honest(driver->cache);
  }
  EXPECT_EQ(off.output(0), on.output(0));
  const auto off_mass = off.cache.attention_mass(0, 1, 1), on_mass = on.cache.attention_mass(0, 1, 1);
  EXPECT_TRUE(std::equal(off_mass.begin(), off_mass.end(), on_mass.begin(), on_mass.end()));
  EXPECT_EQ(off.cache.ledger().held(), on.cache.ledger().held());
  const int64_t maps = on.cache.ledger().workspace - off.cache.ledger().workspace;
  EXPECT_GE(maps, 2 * 2 * int64_t{kBins * kBins} * 4);
  EXPECT_LE(maps, 2 * 2 * (int64_t{kBins * kBins} * 4 + 256)) << "bins only, however long the sequence";
  on.cache.free_sequence(0);
  off.cache.free_sequence(0);
  EXPECT_EQ(on.cache.ledger().workspace, off.cache.ledger().workspace);
}

TEST(AttentionMap, EndsWithItsSequence) {
  ThreadPool pool(1);
  const CacheShape shape{.head_dim = 20, .page_tokens = 8};
  const Projections source(shape, 60, 9);
  CacheDriver driver(shape, pool);
  const SequenceId trunk = driver.add(source);
  driver.cache.map_attention(trunk);
  driver.step({{trunk, 30}});
  const int64_t workspace = driver.cache.ledger().workspace;
  const SequenceId branch = driver.cache.fork_sequence(trunk);
  driver.follow(branch, source);
  EXPECT_EQ(driver.cache.ledger().workspace, workspace) << "a fork is not mapped";
  driver.feed(branch, 30);
  driver.feed(trunk, 30);
  expect_maps(driver.cache, trunk, 1, naive_maps(shape, source, 1));
}

// Page 0 loses most of its tokens for good, page 1 hides two of its own: nothing more goes to them.
TEST(AttentionMap, ShowsNothingForTokensThatAreGone) {
  ThreadPool pool(2);
  constexpr int64_t kBefore = 20;
  const CacheShape shape{.group = 2, .head_dim = 20, .page_tokens = 8};
  const Projections source(shape, 60, 8);
  const auto gone = [](int64_t s) { return (s < 8 && s != 0 && s != 3) || s == 9 || s == 15; };
  const auto bias = [&](int64_t s, int64_t t) { return t >= kBefore && gone(s) ? kHidden : 0.0; };
  auto expected = naive_maps(shape, source, 1, bias);
  expected[1] = naive_maps(shape, source, 1)[1];
  for (const int64_t chunk : {1, 40}) {
    CacheDriver driver(shape, pool);
    KvCache& cache = driver.cache;
    const SequenceId id = driver.add(source);
    cache.map_attention(id);
    driver.step({{id, kBefore}});
    Plan plan;
    add_rewrite(plan, cache, {id, 0, 0}, 0, 1, {0, 3});
    const auto hidden = static_cast<float>(kHidden);
    add_rewrite(plan, cache, {id, 0, 0}, 1, 1, {8, 9, 10, 11, 12, 13, 14, 15},
                {0, hidden, 0, 0, 0, 0, 0, hidden});
    cache.apply(plan);
    driver.feed(id, chunk);
    expect_maps(cache, id, 1, expected);
    const auto cells = cells_of(cache, id, 0);
    for (std::size_t t = kBefore; t < 60; ++t)
      for (std::size_t s = 0; s < t; ++s)
        EXPECT_EQ(cells[t * kBins + s] == 0.0f, gone(static_cast<int64_t>(s))) << t << " " << s;
  }
}

}  // namespace
}  // namespace kva
