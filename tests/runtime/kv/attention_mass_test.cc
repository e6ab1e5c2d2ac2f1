// Attention mass against softmax sums in double, however queries come and pages lie.
#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "tests/runtime/kv/cache_fixture.h"
#include "tests/runtime/kv/rewriting.h"

namespace kva {
namespace {

void observe_all(KvCache& cache) {
  for (int layer = 0; layer < cache.options().layers; ++layer)
    for (int head = 0; head < cache.options().kv_heads; ++head)
      cache.observe(layer, head, {.attention_mass = true});
}

// Of late and near queries.
using PartMass = std::span<const float> (KvCache::*)(SequenceId, int, int) const;

NaiveCounts late(int64_t start) {
  return [=](int64_t, int64_t t) { return t >= start; };
}
NaiveCounts near(int64_t tokens) {
  return [=](int64_t s, int64_t t) { return t - s < tokens; };
}

std::vector<float> mass_of(const KvCache& cache, SequenceId id, int layer, int head) {
  const auto mass = cache.attention_mass(id, layer, head);
  return {mass.begin(), mass.end()};
}

void expect_mass(const KvCache& cache, SequenceId id, const std::vector<std::vector<double>>& expected,
                 double relative, PartMass which = &KvCache::attention_mass) {
  for (int layer = 0; layer < cache.options().layers; ++layer) {
    for (int head = 0; head < cache.options().kv_heads; ++head) {
      const auto mass = (cache.*which)(id, layer, head);
      ASSERT_EQ(static_cast<int64_t>(mass.size()), cache.tokens(id));
      for (std::size_t t = 0; t < mass.size(); ++t) {
        const double wanted = expected[static_cast<std::size_t>(head)][t];
        ASSERT_NEAR(mass[t], wanted, relative * (1.0 + wanted)) << "head " << head << " token " << t;
      }
    }
  }
}

void expect_honest(const KvCache& cache) {
  const ByteLedger ledger = cache.ledger();
  EXPECT_EQ(ledger.held() + ledger.workspace, cache.backend().allocated_bytes());
}

TEST(AttentionMass, IsTheSumOfSoftmaxWeightsForEveryBasisAndChunking) {
  ThreadPool pool(2);
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative}) {
    for (const int group : {1, 3}) {
      const CacheShape shape{.layers = 2, .group = group, .head_dim = 20, .basis = basis};
      const Projections source(shape, 70, 1);
      const auto expected = naive_mass(shape, source, 70);
      for (const int64_t chunk : {1, 4, 17, 70}) {
        CacheDriver driver(shape, pool);
        observe_all(driver.cache);
        const SequenceId id = driver.add(source);
        driver.feed(id, chunk);
        expect_mass(driver.cache, id, expected, 2e-5);
        const auto mass = mass_of(driver.cache, id, 0, 1);
        EXPECT_NEAR(std::accumulate(mass.begin(), mass.end(), 0.0), 70.0, 1e-3) << "each query gives 1";
        expect_honest(driver.cache);
      }
    }
  }
}

TEST(AttentionMass, CrossesRunsTilesAndBlocks) {
  ThreadPool pool(2);
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPageRelative}) {
    const CacheShape shape{.kv_heads = 1, .group = 3, .head_dim = 20, .page_tokens = 17, .basis = basis};
    const Projections source(shape, 1300, 2);
    CacheDriver driver(shape, pool);
    observe_all(driver.cache);
    const SequenceId id = driver.add(source);
    for (const int64_t tokens : {600, 1, 5, 600, 3}) driver.step({{id, tokens}});
    driver.feed(id, 1);
    expect_mass(driver.cache, id, naive_mass(shape, source, 1300),
                basis == KeyBasis::kPageRelative ? 1e-4 : 2e-5);
  }
}

TEST(AttentionMass, BitsDependOnNeitherThreadsNorCompany) {
  const CacheShape shape{.kv_heads = 3, .group = 3, .head_dim = 64, .type = DType::kF16};
  const Projections a(shape, 700, 5), b(shape, 333, 6);
  ThreadPool one(1), three(3);
  const auto alone = [&](const Projections& source, int64_t prompt, ThreadPool& pool) {
    CacheDriver driver(shape, pool);
    observe_all(driver.cache);
    const SequenceId id = driver.add(source);
    driver.step({{id, prompt}});
    driver.feed(id, 1);
    return mass_of(driver.cache, id, 0, 2);
  };
  const auto of_a = alone(a, 680, one), of_b = alone(b, 313, one);
  EXPECT_EQ(of_a, alone(a, 680, three));
  CacheDriver together(shape, three);
  observe_all(together.cache);
  const SequenceId ida = together.add(a), idb = together.add(b);
  together.step({{idb, 313}, {ida, 680}});
  for (int i = 0; i < 20; ++i) together.step({{ida, 1}, {idb, 1}});
  EXPECT_EQ(mass_of(together.cache, ida, 0, 2), of_a);
  EXPECT_EQ(mass_of(together.cache, idb, 0, 2), of_b);
}

TEST(AttentionMass, CostsNothingWhereNobodyAsks) {
  ThreadPool pool(2);
  const CacheShape shape{.layers = 2, .group = 3, .head_dim = 20};
  const Projections source(shape, 120, 7);
  CacheDriver off(shape, pool), on(shape, pool), part(shape, pool);
  observe_all(on.cache);
  part.cache.observe(1, 0, {.attention_mass = true});
  for (CacheDriver* driver : {&off, &on, &part}) {
    const SequenceId id = driver->add(source);
    driver->step({{id, 100}});
    driver->feed(id, 1);
    expect_honest(driver->cache);
  }
  EXPECT_EQ(off.output(0), on.output(0));
  EXPECT_EQ(off.output(0), part.output(0));
  EXPECT_EQ(off.cache.observe_seconds(), 0.0);
  EXPECT_GT(on.cache.observe_seconds(), 0.0);
  EXPECT_GT(on.cache.ledger().workspace, off.cache.ledger().workspace);
  const int64_t of_one = part.cache.ledger().tables - off.cache.ledger().tables;
  EXPECT_GE(of_one, 120 * 4);
  EXPECT_LE(of_one, 120 * 4 * 2 + 4 * 64 + 128) << "O(tokens), and a list of the tables";
  EXPECT_EQ(mass_of(part.cache, 0, 1, 0), mass_of(on.cache, 0, 1, 0));
}

// Page 0 of head 0 keeps tokens 0, 3 and 6, which then stand for 1, 4 and 3.
TEST(AttentionMass, FollowsTokensThroughRewrites) {
  ThreadPool pool(2);
  constexpr int64_t kBefore = 20;
  const CacheShape shape{.group = 2, .head_dim = 20, .page_tokens = 8};
  const Projections source(shape, 60, 8);
  const std::vector<int32_t> kept{0, 3, 6};
  const std::vector<float> biases{0.0f, std::log(4.0f), std::log(3.0f)};
  const auto bias = [&](int64_t s, int64_t t) -> double {
    if (t < kBefore || s >= 8) return 0.0;
    const auto found = std::find(kept.begin(), kept.end(), static_cast<int32_t>(s));
    if (found == kept.end()) return -std::numeric_limits<double>::infinity();
    return biases[static_cast<std::size_t>(found - kept.begin())];
  };
  auto expected = naive_mass(shape, source, 60, bias);
  expected[1] = naive_mass(shape, source, 60)[1];
  for (const int64_t chunk : {1, 40}) {
    CacheDriver driver(shape, pool);
    KvCache& cache = driver.cache;
    observe_all(cache);
    const SequenceId id = driver.add(source);
    driver.step({{id, kBefore}});
    Plan plan;
    add_rewrite(plan, cache, {id, 0, 0}, 0, 1, kept, biases);
    cache.apply(plan);
    const PageFacts facts = cache.page({id, 0, 0, 0, Side::kKey});
    EXPECT_EQ(facts.positions, kept);
    EXPECT_EQ(facts.biases, biases);
    driver.feed(id, chunk);
    expect_mass(cache, id, expected, 2e-5);
    expect_honest(cache);
  }
}

TEST(AttentionMass, ForksStartWithACopyAndFreeingGivesItBack) {
  ThreadPool pool(1);
  const CacheShape shape{.head_dim = 20, .page_tokens = 8};
  const Projections source(shape, 60, 9);
  CacheDriver driver(shape, pool);
  KvCache& cache = driver.cache;
  observe_all(cache);
  const int64_t tables = cache.ledger().tables;
  const SequenceId trunk = driver.add(source);
  driver.step({{trunk, 30}});
  const auto before = mass_of(cache, trunk, 0, 0);
  const SequenceId branch = cache.fork_sequence(trunk), prefix = cache.fork_sequence(trunk, 16);
  EXPECT_EQ(mass_of(cache, branch, 0, 0), before);
  EXPECT_EQ(mass_of(cache, prefix, 0, 0), std::vector<float>(before.begin(), before.begin() + 16));
  expect_honest(cache);
  driver.follow(branch, source);
  driver.feed(trunk, 30);
  EXPECT_EQ(mass_of(cache, branch, 0, 0), before);
  driver.feed(branch, 30);
  EXPECT_EQ(mass_of(cache, branch, 0, 0), mass_of(cache, trunk, 0, 0));
  const int64_t freed_from = cache.ledger().tables;
  for (const SequenceId id : {trunk, branch, prefix}) cache.free_sequence(id);
  expect_honest(cache);
  EXPECT_LT(cache.ledger().tables, freed_from - 2 * 2 * 60 * 4);
  EXPECT_GE(cache.ledger().tables, tables);
  const SequenceId again = driver.add(source);
  driver.step({{again, 30}});
  EXPECT_EQ(mass_of(cache, again, 0, 0), before);
}

// ---- Masses of late and of near queries ----------------------------------------------------------------

// Observes all three of every table.
void observe_parts(KvCache& cache) {
  for (int layer = 0; layer < cache.options().layers; ++layer)
    for (int head = 0; head < cache.options().kv_heads; ++head)
      cache.observe(layer, head, {.attention_mass = true, .late_mass = true, .near_mass = true});
}

TEST(PartMass, IsWhatLateAndNearQueriesGaveForEveryBasisAndChunking) {
  ThreadPool pool(2);
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative}) {
    for (const int group : {1, 3}) {
      const CacheShape shape{.layers = 2, .group = group, .head_dim = 20, .basis = basis};
      const Projections source(shape, 70, 1);
      for (const auto& [start, tokens] : {std::pair{0, 1}, {41, 9}, {57, 16}, {69, 33}, {70, 200}}) {
        const auto expected_late = naive_mass(shape, source, late(start));
        const auto expected_near = naive_mass(shape, source, near(tokens));
        for (const int64_t chunk : {1, 4, 17, 70}) {
          CacheDriver driver(shape, pool);
          observe_parts(driver.cache);
          const SequenceId id = driver.add(source);
          driver.cache.set_late_start(id, start);
          driver.cache.set_near_tokens(id, tokens);
          driver.feed(id, chunk);
          expect_mass(driver.cache, id, naive_mass(shape, source, 70), 2e-5);
          expect_mass(driver.cache, id, expected_late, 2e-5, &KvCache::late_mass);
          expect_mass(driver.cache, id, expected_near, 2e-5, &KvCache::near_mass);
          expect_honest(driver.cache);
        }
      }
    }
  }
}

TEST(PartMass, CrossesRunsTilesAndBlocks) {
  ThreadPool pool(2);
  const CacheShape shape{.kv_heads = 1, .group = 3, .head_dim = 20, .page_tokens = 17};
  const Projections source(shape, 1300, 2);
  const auto expected_late = naive_mass(shape, source, late(700));
  for (const int64_t tokens : {5, 290}) {
    for (const bool all : {false, true}) {
      CacheDriver driver(shape, pool);
      driver.cache.observe(0, 0, {.attention_mass = all, .late_mass = true, .near_mass = true});
      const SequenceId id = driver.add(source);
      driver.cache.set_late_start(id, 700);
      driver.cache.set_near_tokens(id, tokens);
      for (const int64_t step : {600, 1, 5, 600, 3}) driver.step({{id, step}});
      driver.feed(id, 1);
      expect_mass(driver.cache, id, expected_late, 2e-5, &KvCache::late_mass);
      expect_mass(driver.cache, id, naive_mass(shape, source, near(tokens)), 2e-5, &KvCache::near_mass);
    }
  }
}

TEST(PartMass, BitsDependOnNeitherThreadsNorCompanyNorWhatElseIsAsked) {
  const CacheShape shape{.kv_heads = 3, .group = 3, .head_dim = 64, .type = DType::kF16};
  const Projections a(shape, 700, 5), b(shape, 333, 6);
  ThreadPool one(1), three(3);
  const auto both = [](const KvCache& cache, SequenceId id) {
    const auto late = cache.late_mass(id, 0, 2), near = cache.near_mass(id, 0, 2);
    return std::pair{std::vector<float>(late.begin(), late.end()),
                     std::vector<float>(near.begin(), near.end())};
  };
  const auto alone = [&](ThreadPool& pool, bool all) {
    CacheDriver driver(shape, pool);
    driver.cache.observe(0, 2, {.attention_mass = all, .late_mass = true, .near_mass = true});
    const SequenceId id = driver.add(a);
    driver.cache.set_late_start(id, 500);
    driver.cache.set_near_tokens(id, 100);
    driver.step({{id, 680}});
    driver.feed(id, 1);
    return both(driver.cache, id);
  };
  const auto expected = alone(one, false);
  EXPECT_EQ(expected, alone(three, false));
  EXPECT_EQ(expected, alone(three, true));
  CacheDriver together(shape, three);
  observe_parts(together.cache);
  const SequenceId idb = together.add(b), ida = together.add(a);
  together.cache.set_late_start(ida, 500);
  together.cache.set_near_tokens(ida, 100);
  together.cache.set_near_tokens(idb, 7);
  together.step({{idb, 313}, {ida, 680}});
  for (int i = 0; i < 20; ++i) together.step({{ida, 1}, {idb, 1}});
  EXPECT_EQ(both(together.cache, ida), expected);
}

TEST(PartMass, OfAllQueriesIsTheWholeMassBitForBit) {
  ThreadPool pool(2);
  const CacheShape shape{.group = 3, .head_dim = 20};
  const Projections source(shape, 200, 6);
  for (const int64_t chunk : {1, 90}) {
    CacheDriver driver(shape, pool);
    observe_parts(driver.cache);
    const SequenceId id = driver.add(source);
    driver.cache.set_late_start(id, 0);
    driver.cache.set_near_tokens(id, 200);
    driver.feed(id, chunk);
    const auto whole = mass_of(driver.cache, id, 0, 1);
    const auto late = driver.cache.late_mass(id, 0, 1), near = driver.cache.near_mass(id, 0, 1);
    EXPECT_EQ(std::vector<float>(late.begin(), late.end()), whole);
    EXPECT_EQ(std::vector<float>(near.begin(), near.end()), whole);
  }
}

// Page 0 of head 0 keeps three tokens that stand for several, page 1 hides two of its own.
TEST(PartMass, FollowsTokensThroughRewrites) {
  ThreadPool pool(2);
  constexpr int64_t kBefore = 20;
  constexpr double kHidden = -std::numeric_limits<double>::infinity();
  const CacheShape shape{.group = 2, .head_dim = 20, .page_tokens = 8};
  const Projections source(shape, 60, 8);
  const auto bias = [&](int64_t s, int64_t t) -> double {
    if (t < kBefore || s >= 16) return 0.0;
    if (s >= 8) return s == 9 || s == 15 ? kHidden : 0.0;
    return s == 0 ? 0.0 : s == 3 ? std::log(4.0f) : s == 6 ? std::log(3.0f) : kHidden;
  };
  const auto expected = [&](const NaiveCounts& counts) {
    auto masses = naive_mass(shape, source, counts, bias);
    masses[1] = naive_mass(shape, source, counts)[1];
    return masses;
  };
  for (const int64_t chunk : {1, 40}) {
    for (const int64_t tokens : {14, 22, 30}) {
      CacheDriver driver(shape, pool);
      KvCache& cache = driver.cache;
      observe_parts(cache);
      const SequenceId id = driver.add(source);
      cache.set_late_start(id, 25);
      cache.set_near_tokens(id, tokens);
      driver.step({{id, kBefore}});
      Plan plan;
      add_rewrite(plan, cache, {id, 0, 0}, 0, 1, {0, 3, 6}, {0.0f, std::log(4.0f), std::log(3.0f)});
      std::vector<float> hides(8, 0.0f);
      hides[1] = hides[7] = -std::numeric_limits<float>::infinity();
      add_rewrite(plan, cache, {id, 0, 0}, 1, 1, {8, 9, 10, 11, 12, 13, 14, 15}, hides);
      cache.apply(plan);
      driver.feed(id, chunk);
      expect_mass(cache, id, expected(late(25)), 2e-5, &KvCache::late_mass);
      expect_mass(cache, id, expected(near(tokens)), 2e-5, &KvCache::near_mass);
    }
  }
}

TEST(PartMass, SettingForgetsAndForksTakeOver) {
  ThreadPool pool(1);
  const CacheShape shape{.head_dim = 20, .page_tokens = 8};
  const Projections source(shape, 60, 9);
  CacheDriver driver(shape, pool);
  KvCache& cache = driver.cache;
  observe_parts(cache);
  const SequenceId trunk = driver.add(source);
  driver.step({{trunk, 20}});
  EXPECT_EQ(cache.late_mass(trunk, 0, 0)[0], 0.0f) << "no query is late by itself";
  EXPECT_EQ(cache.near_mass(trunk, 0, 0)[0], 0.0f);
  cache.set_late_start(trunk, 22);
  cache.set_near_tokens(trunk, 5);
  driver.step({{trunk, 20}});
  const SequenceId branch = cache.fork_sequence(trunk), prefix = cache.fork_sequence(trunk, 32);
  EXPECT_EQ(cache.near_mass(prefix, 0, 0).size(), 32u);
  EXPECT_EQ(cache.late_mass(prefix, 0, 0)[31], cache.late_mass(trunk, 0, 0)[31]);
  driver.follow(branch, source);
  driver.feed(branch, 20);
  expect_mass(cache, branch, naive_mass(shape, source, late(22)), 2e-5, &KvCache::late_mass);
  expect_mass(cache, branch,
              naive_mass(shape, source, [](int64_t s, int64_t t) { return t >= 20 && t - s < 5; }), 2e-5,
              &KvCache::near_mass);
  cache.set_late_start(trunk, 30);
  EXPECT_EQ(cache.late_mass(trunk, 0, 0)[0], 0.0f);
  EXPECT_GT(cache.near_mass(trunk, 0, 0)[20], 0.0f);
  driver.feed(trunk, 20);
  expect_mass(cache, trunk, naive_mass(shape, source, late(40)), 2e-5, &KvCache::late_mass);
  for (const SequenceId id : {trunk, branch, prefix}) cache.free_sequence(id);
  expect_honest(cache);
  const SequenceId again = driver.add(source);
  driver.step({{again, 30}});
  EXPECT_EQ(cache.late_mass(again, 0, 0)[0], 0.0f) << "a new sequence has no bounds";
}

TEST(PartMass, CostsOnlyWhatIsAsked) {
  ThreadPool pool(2);
  const CacheShape shape{.layers = 2, .group = 3, .head_dim = 20};
  const Projections source(shape, 120, 7);
  CacheDriver off(shape, pool), on(shape, pool);
  on.cache.observe(1, 0, {.late_mass = true});
  for (CacheDriver* driver : {&off, &on}) {
    const SequenceId id = driver->add(source);
    driver->cache.set_late_start(id, 100);
    driver->step({{id, 100}});
    EXPECT_EQ(driver->cache.observe_seconds(), 0.0) << "no query was late";
    driver->feed(id, 7);
    expect_honest(driver->cache);
  }
  EXPECT_GT(on.cache.observe_seconds(), 0.0);
  EXPECT_EQ(off.output(0), on.output(0));
  const int64_t of_one = on.cache.ledger().tables - off.cache.ledger().tables;
  EXPECT_GE(of_one, 120 * 4);
  EXPECT_LE(of_one, 120 * 4 * 2 + 4 * 64 + 128) << "one array, and a list of the tables";
}

}  // namespace
}  // namespace kva
