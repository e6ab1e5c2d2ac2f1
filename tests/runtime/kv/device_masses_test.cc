// What a cache on a device observes of attention: masses and maps.
#include <gtest/gtest.h>

#include <numeric>
#include <span>

#include "tests/runtime/kv/device_pair.h"

namespace kva {
namespace {

TEST_F(DeviceCache, MassesAreTheSumsOfSoftmaxWeights) {
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative}) {
    const CacheShape shape{.layers = 2, .group = 3, .head_dim = 16, .basis = basis};
    const Projections source(shape, 41, 17), other(shape, 20, 18);
    CacheDriver driver(on_device(shape.options(), device), shape, pool);
    KvCache& cache = driver.cache;
    for (int layer = 0; layer < 2; ++layer)
      for (int head = 0; head < 2; ++head)
        cache.observe(layer, head, {.attention_mass = true, .late_mass = true, .near_mass = layer == 1});
    const SequenceId id = driver.add(source), beside = driver.add(other);
    cache.set_late_start(id, 19);
    cache.set_near_tokens(id, 5);
    for (const int64_t tokens : {17, 1, 1, 1, 17}) driver.step({{beside, 2}, {id, tokens}});
    for (int i = 0; i < 4; ++i) driver.step({{id, 1}});
    expect_honest(cache);
    const auto all = naive_mass(shape, source, 41);
    const auto late = naive_mass(shape, source, [](int64_t, int64_t t) { return t >= 19; });
    const auto near = naive_mass(shape, source, [](int64_t s, int64_t t) { return t - s < 5; });
    const auto expect = [&](std::span<const float> mass, const std::vector<double>& expected) {
      ASSERT_EQ(mass.size(), expected.size());
      for (std::size_t t = 0; t < mass.size(); ++t)
        ASSERT_NEAR(mass[t], expected[t], 2e-5 * (1.0 + expected[t])) << "token " << t;
    };
    for (int head = 0; head < 2; ++head) {
      const auto of = static_cast<std::size_t>(head);
      expect(cache.attention_mass(id, 0, head), all[of]);
      expect(cache.late_mass(id, 1, head), late[of]);
      expect(cache.near_mass(id, 1, head), near[of]);
    }
  }
}

TEST_F(DeviceCache, MassesOfRewrittenPagesGoToTheirPositions) {
  const CacheShape shape{.layers = 1, .group = 2, .head_dim = 24};
  const Projections source(shape, 80, 19);
  Pair pair(shape, device, pool);
  for (CacheDriver* driver : {&pair.here, &pair.there})
    for (int head = 0; head < 2; ++head) driver->cache.observe(0, head, {.attention_mass = true});
  const SequenceId id = pair.add(source);
  pair.step({{id, 60}});
  for (CacheDriver* driver : {&pair.here, &pair.there})
    driver->cache.apply(mixed_plan(driver->cache, id, true));
  for (const int64_t tokens : {1, 1, 18}) pair.step({{id, tokens}});
  for (int head = 0; head < 2; ++head) {
    const auto here = pair.here.cache.attention_mass(id, 0, head);
    const auto there = pair.there.cache.attention_mass(id, 0, head);
    expect_near({there.begin(), there.end()}, {here.begin(), here.end()}, 1e-4);
  }
}

// Single queries and chunks across blocks of 1, 2 and 4 tokens; pages that are rewritten; a sequence beside
// that is not mapped; masses too.
TEST_F(DeviceCache, MapsAreThoseOfTheCpu) {
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain}) {
    const CacheShape shape{.layers = 2, .group = 3, .head_dim = 16, .basis = basis};
    const Projections source(shape, 300, 23), other(shape, 60, 24);
    Pair pair(shape, device, pool);
    for (CacheDriver* driver : {&pair.here, &pair.there})
      driver->cache.observe(1, 0, {.attention_mass = true, .near_mass = true});
    const SequenceId beside = pair.add(other), id = pair.add(source);
    for (CacheDriver* driver : {&pair.here, &pair.there}) {
      driver->cache.map_attention(id);
      driver->cache.set_near_tokens(id, 9);
    }
    for (const int64_t tokens : {1, 47, 1, 1}) pair.step({{beside, 2}, {id, tokens}});
    for (CacheDriver* driver : {&pair.here, &pair.there})
      driver->cache.apply(mixed_plan(driver->cache, id, true));
    for (const int64_t tokens : {1, 75, 1, 1, 1, 1, 30, 1, 100, 1, 1}) pair.step({{id, tokens}});
    for (int layer = 0; layer < 2; ++layer)
      for (int head = 0; head < 2; ++head) {
        const AttentionMap& here = pair.here.cache.attention_map(id, layer, head);
        const AttentionMap& there = pair.there.cache.attention_map(id, layer, head);
        ASSERT_EQ(there.block_tokens(), here.block_tokens());
        for (std::size_t i = 0; i < here.cells().size(); ++i)
          ASSERT_NEAR(there.cells()[i], here.cells()[i], 1e-4 * (1.0 + here.cells()[i])) << i;
      }
    for (const bool near : {false, true}) {
      const auto mass = [&](const KvCache& cache) {
        const auto of = near ? cache.near_mass(id, 1, 0) : cache.attention_mass(id, 1, 0);
        return std::vector<float>(of.begin(), of.end());
      };
      expect_near(mass(pair.there.cache), mass(pair.here.cache), 1e-3);
    }
  }
}

// What is observed of a step of decoding is summed by launches that come again.
TEST_F(DeviceCache, ObservedStepsAreRecorded) {
  const CacheShape shape{.layers = 2, .group = 2, .head_dim = 16};
  const Projections source(shape, 90, 25);
  std::vector<std::vector<float>> seen;
  for (const bool records : {true, false}) {
    const auto own = device_under_test();
    own->keep_recordings(records ? 8 : 0);
    CacheDriver driver(on_device(shape.options(), own), shape, pool);
    driver.cache.observe(0, 0, {.attention_mass = true, .late_mass = true});
    driver.cache.observe(1, 1, {.near_mass = true});
    const SequenceId id = driver.add(source);
    driver.cache.map_attention(id);
    driver.cache.set_late_start(id, 50);
    driver.cache.set_near_tokens(id, 20);
    driver.step({{id, 40}});
    driver.feed(id, 1);
    for (const auto mass : {driver.cache.attention_mass(id, 0, 0), driver.cache.late_mass(id, 0, 0),
                            driver.cache.near_mass(id, 1, 1), driver.cache.attention_map(id, 1, 0).cells()})
      seen.emplace_back(mass.begin(), mass.end());
    if (records) {
      EXPECT_GT(own->recordings().replayed, 35);
    }
  }
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(seen[i], seen[i + 4]) << i;
}

// What attention in tiles leaves of maxima and sums is what observed weights are divided by: those of a query
// add up to 1, and query heads are averaged.
TEST_F(DeviceCache, WeightsObservedBehindTilesAddUp) {
  const CacheShape shape{.layers = 1, .group = 2, .head_dim = 64, .type = DType::kF16};
  const Projections source(shape, 60, 9);
  CacheDriver driver(on_device(shape.options(), device), shape, pool);
  driver.cache.observe(0, 1, {.attention_mass = true});
  const SequenceId id = driver.add(source);
  for (const int64_t tokens : {40, 1, 19}) driver.step({{id, tokens}});
  const auto mass = driver.cache.attention_mass(id, 0, 1);
  EXPECT_NEAR(std::accumulate(mass.begin(), mass.end(), 0.0), 60.0, 60.0 * 2e-5);
}

}  // namespace
}  // namespace kva
