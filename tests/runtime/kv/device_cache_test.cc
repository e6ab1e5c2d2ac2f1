// A cache whose pages are on a device, beside the same cache on the CPU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "runtime/error.h"
#include "runtime/kv/page_store.h"
#include "tests/error_of.h"
#include "tests/runtime/kv/cache_fixture.h"
#include "tests/runtime/kv/device_under_test.h"

namespace kva {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr float kHidden = -std::numeric_limits<float>::infinity();

KvCacheOptions on_device(KvCacheOptions options, std::shared_ptr<DeviceOps> device) {
  options.backend = make_device_backend(std::move(device));
  return options;
}

class DeviceCache : public testing::Test {
 protected:
  void SetUp() override {
    if (!device) GTEST_SKIP() << "no device";
  }
  std::shared_ptr<DeviceOps> device = device_under_test();
  ThreadPool pool{1};
};

void expect_honest(const KvCache& cache) {
  const ByteLedger ledger = cache.ledger();
  ASSERT_EQ(ledger.held() + ledger.workspace - ledger.beside, cache.backend().allocated_bytes());
  ASSERT_EQ(ledger.beside, cache.host_backend().allocated_bytes());
  ASSERT_GE(ledger.slack, 0);
  ASSERT_GE(ledger.peak, ledger.held());
}

// Sums in another order, of numbers up to about 4.
void expect_near(const std::vector<float>& got, const std::vector<float>& expected, double within) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], within) << "number " << i;
}

// Both caches, fed alike.
struct Pair {
  Pair(const CacheShape& shape, const std::shared_ptr<DeviceOps>& device, ThreadPool& pool)
      : here(shape, pool), there(on_device(shape.options(), device), shape, pool) {}

  SequenceId add(const Projections& source) {
    const SequenceId id = here.add(source);
    EXPECT_EQ(there.add(source), id);
    return id;
  }
  void step(const std::vector<CacheDriver::Take>& takes) {
    here.step(takes);
    there.step(takes);
    expect_honest(there.cache);
  }
  void apply(const Plan& plan) {
    here.cache.apply(plan);
    there.cache.apply(plan);
    expect_honest(there.cache);
  }
  void compare(SequenceId id, double within = 1e-5) const {
    expect_near(there.output(id), here.output(id), within);
  }

  CacheDriver here, there;
};

// ---- Memory ----------------------------------------------------------------------------------------------

TEST_F(DeviceCache, ABackEndCountsTheDevicesMemory) {
  const auto backend = make_device_backend(device);
  EXPECT_EQ(backend->name(), device->name());
  EXPECT_EQ(backend->device(), device.get());
  {
    const Buffer a(*backend, 300, "a test"), b(*backend, 8, "a test");
    EXPECT_EQ(backend->allocated_bytes(), 512 + 256);
    const std::vector<int> sent = {1, 2};
    std::vector<int> found(2);
    backend->upload(a.data(), sent.data(), 8);
    backend->copy(b.data(), a.data(), 8);
    backend->download(found.data(), b.data(), 8);
    EXPECT_EQ(found, sent);
    EXPECT_THAT(error_of([&] { Buffer(*backend, int64_t{1} << 50, "cache pages"); }),
                AllOf(HasSubstr(device->name() + ": out of memory"), HasSubstr("asked for cache pages")));
  }
  EXPECT_EQ(backend->allocated_bytes(), 0);
  EXPECT_EQ(backend->peak_bytes(), 768);
}

// The list of freed slots cannot go through the slots themselves, which the host does not reach.
TEST_F(DeviceCache, FreedSlotsAreUsedAgain) {
  const auto backend = make_device_backend(device), host = make_cpu_backend();
  {
    PageStore store(*backend, *host, 8, 16);
    const auto codec = make_dense_codec(DType::kF32);
    const auto payload = [](std::size_t i) {
      return std::vector<std::byte>(std::size_t{512}, static_cast<std::byte>(i % 251));
    };
    const auto places = [](std::size_t i) {
      return std::vector<std::byte>(48, static_cast<std::byte>(i % 241));
    };
    std::vector<SideId> sides, where;
    for (std::size_t i = 0; i < 300; ++i) {
      sides.push_back(store.add(codec, Lane::kKeys, 16, 8, payload(i)));
      where.push_back(store.add_places(places(i)));
    }
    ByteLedger full;
    store.add_to(full);
    EXPECT_EQ(full.beside, host->allocated_bytes());
    EXPECT_EQ(full.held() - full.beside, backend->allocated_bytes());
    for (std::size_t i = 0; i < 300; i += 3)
      for (std::vector<SideId>* of : {&sides, &where}) store.release((*of)[i]);
    const int64_t slabs = store.live_slabs();
    for (std::size_t i = 0; i < 300; i += 3) {
      sides[i] = store.add(codec, Lane::kKeys, 16, 8, payload(i + 7));
      where[i] = store.add_places(places(i + 7));
    }
    EXPECT_EQ(store.live_slabs(), slabs);
    for (std::size_t i = 0; i < 300; ++i) {
      const std::size_t of = i % 3 == 0 ? i + 7 : i;
      ASSERT_EQ(store.downloaded(sides[i]), payload(of)) << i;
      ASSERT_EQ(std::vector<std::byte>(store.places(where[i]), store.places(where[i]) + 48), places(of)) << i;
    }
    for (const auto& of : {sides, where})
      for (const SideId id : of) store.release(id);
    EXPECT_EQ(store.live_slabs(), 0);
    EXPECT_EQ(backend->allocated_bytes(), 0);
  }
  EXPECT_EQ(host->allocated_bytes(), 0);
}

// ---- Attention -------------------------------------------------------------------------------------------

struct Shape {
  int head_dim;
  int group;
  int page_tokens;
};

class DeviceKvAttention : public testing::TestWithParam<Shape> {};

TEST_P(DeviceKvAttention, AgreesWithDoubleAndWithTheCpu) {
  const Shape c = GetParam();
  const auto device = device_under_test();
  if (!device) GTEST_SKIP() << "no device";
  ThreadPool pool(1);
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    const CacheShape shape{
        .group = c.group, .head_dim = c.head_dim, .page_tokens = c.page_tokens, .type = type};
    const Projections source(shape, 36, 1);
    Pair pair(shape, device, pool);
    const SequenceId id = pair.add(source);
    for (const int64_t tokens : {1, 15, 1, 1, 16, 2}) pair.step({{id, tokens}});
    // A key that rounds to the other neighbour, as cosines of another library may have it, moves its score;
    // weights of a chunk's 16 queries are rounded to f16 where values are, which are below 4.
    pair.compare(id, type == DType::kF32 ? 1e-5 : type == DType::kF16 ? 0x1p-8 : 0x1p-6);
    if (type != DType::kF32) continue;
    const auto expected = naive_attention(shape, source);
    const auto& output = pair.there.output(id);
    for (std::size_t i = 0; i < output.size(); ++i) ASSERT_NEAR(output[i], expected[i], 1e-5);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, DeviceKvAttention,
                         testing::Values(Shape{8, 3, 1}, Shape{64, 1, 16}, Shape{64, 9, 15}, Shape{80, 1, 17},
                                         Shape{128, 9, 16}),
                         [](const auto& tested) {
                           const Shape& c = tested.param;
                           return "dim" + std::to_string(c.head_dim) + "group" + std::to_string(c.group) +
                                  "page" + std::to_string(c.page_tokens);
                         });

TEST_F(DeviceCache, PagesReadBackAsTheCpuHasThem) {
  const CacheShape shape{.layers = 2, .head_dim = 64, .type = DType::kF16};
  const Projections source(shape, 40, 2);
  Pair pair(shape, device, pool);
  const SequenceId id = pair.add(source);
  pair.step({{id, 40}});
  for (int layer = 0; layer < 2; ++layer)
    for (int head = 0; head < 2; ++head)
      for (int64_t page = 0; page < 3; ++page)
        for (const Side side : {Side::kKey, Side::kValue}) {
          const int64_t tokens = pair.here.cache.page({id, layer, head, page, side}).tokens;
          std::vector<float> here(static_cast<std::size_t>(tokens * 64)), there = here;
          pair.here.cache.read_page(id, layer, head, page, side, {here.data(), tokens, 64});
          pair.there.cache.read_page(id, layer, head, page, side, {there.data(), tokens, 64});
          if (side == Side::kValue) {
            EXPECT_EQ(there, here);
          } else {
            expect_near(there, here, 0x1p-8);
          }
        }
}

TEST_F(DeviceCache, LearnedPositionsNeedNoRope) {
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative}) {
    const CacheShape shape{.head_dim = 16, .basis = basis, .rope = false};
    const Projections source(shape, 20, 3);
    Pair pair(shape, device, pool);
    const SequenceId id = pair.add(source);
    pair.step({{id, 19}});
    pair.step({{id, 1}});
    pair.compare(id);
  }
}

TEST_F(DeviceCache, KeysAreTurnedWhereTheirBasisSays) {
  for (const KeyBasis basis : {KeyBasis::kPlain, KeyBasis::kPageRelative})
    for (const DType type : {DType::kF32, DType::kF16}) {
      const CacheShape shape{.group = 3, .head_dim = 16, .page_tokens = 8, .basis = basis, .type = type};
      const Projections source(shape, 36, 15);
      Pair pair(shape, device, pool);
      const SequenceId id = pair.add(source);
      for (const int64_t tokens : {1, 15, 1, 1, 16, 2}) pair.step({{id, tokens}});
      pair.compare(id, type == DType::kF32 ? 1e-5 : 0x1p-9);
    }
}

TEST_F(DeviceCache, PartOfAHeadIsRotated) {
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative}) {
    const CacheShape shape{.head_dim = 16, .basis = basis};
    const Projections source(shape, 20, 16);
    KvCacheOptions options = shape.options();
    options.rope = Rope(16, 8, 10000.0, {});
    CacheDriver here(options, shape, pool), there(on_device(options, device), shape, pool);
    for (CacheDriver* driver : {&here, &there}) {
      const SequenceId id = driver->add(source);
      driver->step({{id, 18}});
      driver->feed(id, 1);
    }
    expect_near(there.output(0), here.output(0), 1e-5);
  }
}

TEST_F(DeviceCache, LongContextsCrossRuns) {
  const CacheShape shape{.kv_heads = 1, .head_dim = 8, .page_tokens = 64};
  const Projections source(shape, 560, 4);
  Pair pair(shape, device, pool);
  const SequenceId id = pair.add(source);
  for (const int64_t tokens : {509, 1, 1, 1, 1, 46, 1}) pair.step({{id, tokens}});
  pair.compare(id);
}

// Chunks of all lengths about an item's, after and before single tokens, over page boundaries.
TEST_F(DeviceCache, ChunksGoToTiles) {
  for (const DType type : {DType::kF16, DType::kBF16})
    for (const int head_dim : {64, 128}) {
      const CacheShape shape{
          .layers = 2, .group = 3, .head_dim = head_dim, .page_tokens = head_dim / 4 + 1, .type = type};
      const Projections source(shape, 140, 6);
      Pair pair(shape, device, pool);
      const SequenceId id = pair.add(source);
      for (const int64_t tokens : {70, 1, 5, 6, 1, 21, 36}) pair.step({{id, tokens}});
      pair.compare(id, type == DType::kF16 ? 0x1p-8 : 0x1p-6);
    }
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

// ---- Sequences -------------------------------------------------------------------------------------------

TEST_F(DeviceCache, ASequenceIsTheSameInAnyCompany) {
  const CacheShape shape{.layers = 2, .group = 3, .head_dim = 16, .type = DType::kF16};
  const Projections a(shape, 42, 5), b(shape, 25, 6), c(shape, 15, 7);
  const auto alone = [&](const Projections& source, int64_t prompt) {
    CacheDriver driver(on_device(shape.options(), device), shape, pool);
    const SequenceId id = driver.add(source);
    driver.step({{id, prompt}});
    driver.feed(id, 1);
    return driver.output(id);
  };
  Pair together(shape, device, pool);
  const SequenceId ida = together.add(a), idb = together.add(b), idc = together.add(c);
  together.step({{idb, 20}, {ida, 37}, {idc, 0}});
  together.step({{idc, 10}});
  for (int i = 0; i < 5; ++i) together.step({{idc, 1}, {ida, 1}, {idb, 1}});
  EXPECT_EQ(together.there.output(ida), alone(a, 37));
  EXPECT_EQ(together.there.output(idb), alone(b, 20));
  EXPECT_EQ(together.there.output(idc), alone(c, 10));
  for (const SequenceId id : {ida, idb, idc}) together.compare(id, 0x1p-9);
}

TEST_F(DeviceCache, AChunkInTilesIsTheSameInAnyCompany) {
  const CacheShape shape{.layers = 1, .group = 3, .head_dim = 64, .type = DType::kF16};
  const Projections a(shape, 42, 5), b(shape, 90, 6);
  CacheDriver alone(on_device(shape.options(), device), shape, pool);
  const SequenceId id = alone.add(a);
  alone.step({{id, 25}});
  alone.step({{id, 17}});
  CacheDriver together(on_device(shape.options(), device), shape, pool);
  const SequenceId idb = together.add(b), ida = together.add(a);
  together.step({{idb, 60}, {ida, 25}});
  together.step({{ida, 17}, {idb, 30}});
  EXPECT_EQ(together.output(ida), alone.output(id));
}

TEST_F(DeviceCache, ForksShareAndPart) {
  const CacheShape shape{.head_dim = 16};
  const Projections a(shape, 60, 8), b(shape, 60, 9);
  Pair pair(shape, device, pool);
  const SequenceId id = pair.add(a);
  pair.step({{id, 37}});
  const int64_t before = pair.there.cache.ledger().payload;
  SequenceId copy = 0, prefix = 0;
  for (CacheDriver* driver : {&pair.here, &pair.there}) {
    copy = driver->cache.fork_sequence(id);
    driver->follow(copy, b);
    prefix = driver->cache.fork_sequence(id, 16);
    driver->follow(prefix, b);
  }
  EXPECT_EQ(pair.there.cache.ledger().payload, before);
  for (int i = 0; i < 12; ++i) pair.step({{copy, 1}, {id, 1}, {prefix, 2}});
  for (const SequenceId of : {id, copy, prefix}) pair.compare(of);
  for (const SequenceId of : {id, copy, prefix}) {
    pair.there.cache.free_sequence(of);
    expect_honest(pair.there.cache);
  }
  const ByteLedger ledger = pair.there.cache.ledger();
  EXPECT_EQ(ledger.payload + ledger.scales + ledger.slack, 0);
  const SequenceId again = pair.there.add(b);
  EXPECT_EQ(again, 0);
  pair.there.feed(again, 60);
  CacheDriver fresh(shape, pool);
  fresh.feed(fresh.add(b), 60);
  expect_near(pair.there.output(again), fresh.output(0), 1e-5);
}

// ---- Plans -----------------------------------------------------------------------------------------------

NewSide dense_side(const KvCache& cache, const PageAddress& at, const std::vector<int64_t>& tokens,
                   DType type) {
  const int64_t dim = cache.options().head_dim;
  const int64_t count = cache.page(at).tokens;
  std::vector<float> rows(static_cast<std::size_t>(count * dim)), kept;
  cache.read_page(at.sequence, at.layer, at.kv_head, at.page, at.side, {rows.data(), count, dim});
  for (const int64_t t : tokens)
    kept.insert(kept.end(), rows.begin() + t * dim, rows.begin() + (t + 1) * dim);
  NewSide side{.codec = make_dense_codec(type),
               .lane = at.side == Side::kKey ? Lane::kKeys : Lane::kValues,
               .tokens = std::ssize(tokens),
               .width = dim};
  side.payload.resize(static_cast<std::size_t>(side.codec->bytes(side.tokens, dim)));
  side.codec->encode({kept.data(), side.tokens, dim}, {}, side.payload.data());
  return side;
}

// Pages 0 and 1 of every table in another type, page 2 with the tokens that are left and biases.
Plan mixed_plan(const KvCache& cache, SequenceId id, bool biased) {
  Plan plan;
  std::vector<int64_t> all(16);
  std::iota(all.begin(), all.end(), 0);
  for (int layer = 0; layer < cache.options().layers; ++layer)
    for (int head = 0; head < cache.options().kv_heads; ++head) {
      for (const int64_t page : {0, 1})
        for (const Side side : {Side::kKey, Side::kValue}) {
          const PageAddress at{id, layer, head, page, side};
          plan.edits.push_back({.at = at, .new_side = static_cast<int>(plan.sides.size())});
          plan.sides.push_back(dense_side(cache, at, all, page == 0 ? DType::kF16 : DType::kBF16));
        }
      PlanRewrite rewrite{.sequence = id, .layer = layer, .kv_head = head, .first_page = 2, .pages = 1};
      rewrite.k = static_cast<int>(plan.sides.size());
      rewrite.v = rewrite.k + 1;
      rewrite.positions = {33, 35, 40, 46};
      if (biased) rewrite.biases = {0.5f, kHidden, 0.0f, std::log(3.0f)};
      for (const Side side : {Side::kKey, Side::kValue})
        plan.sides.push_back(dense_side(cache, {id, layer, head, 2, side}, {1, 3, 8, 14}, DType::kF32));
      plan.rewrites.push_back(rewrite);
    }
  return plan;
}

TEST_F(DeviceCache, ReadsMixedAndRewrittenPages) {
  for (const auto& [biased, basis] :
       {std::pair{false, KeyBasis::kRotated}, {true, KeyBasis::kRotated}, {true, KeyBasis::kPlain}}) {
    const CacheShape shape{.layers = 2, .group = 2, .head_dim = 24, .basis = basis};
    const Projections source(shape, 111, 10);
    Pair pair(shape, device, pool);
    const SequenceId id = pair.add(source);
    pair.step({{id, 60}});
    // Each from its own pages: cosines may differ.
    pair.here.cache.apply(mixed_plan(pair.here.cache, id, biased));
    pair.there.cache.apply(mixed_plan(pair.there.cache, id, biased));
    expect_honest(pair.there.cache);
    for (const int64_t tokens : {1, 1, 1, 1, 1, 1, 20, 1}) pair.step({{id, tokens}});
    pair.compare(id);
    const PageFacts facts = pair.there.cache.page({id, 1, 1, 2, Side::kValue});
    EXPECT_EQ(facts.positions, (std::vector<int32_t>{33, 35, 40, 46}));
    EXPECT_EQ(facts.biases[3], biased ? std::log(3.0f) : 0.0f);
    // The rewritten page goes, and pages behind it move up.
    Plan drop;
    drop.rewrites.push_back({.sequence = id, .layer = 1, .kv_head = 0, .first_page = 1, .pages = 2});
    pair.apply(drop);
    pair.step({{id, 1}});
    pair.step({{id, 23}});
    pair.compare(id);
  }
}

TEST_F(DeviceCache, AliasedPagesAreReadAtTheirOwnPlaces) {
  const CacheShape shape{.head_dim = 16};
  const Projections source(shape, 50, 11);
  Pair pair(shape, device, pool);
  const SequenceId id = pair.add(source);
  pair.step({{id, 40}});
  Plan plan;
  for (const Side side : {Side::kKey, Side::kValue})
    plan.edits.push_back(
        {.at = {id, 0, 1, 1, side}, .alias = pair.here.cache.page({id, 0, 0, 0, side}).side});
  pair.apply(plan);
  pair.step({{id, 10}});
  pair.compare(id);
  std::vector<std::byte> payload(std::size_t{1024}, std::byte{1});
  const SideId side = pair.there.cache.page({id, 0, 0, 0, Side::kKey}).side;
  const SideCodec& codec = *pair.there.cache.options().k_codec;
  EXPECT_FALSE(pair.there.cache.holds(side, codec, payload));
}

// ---- Masses ----------------------------------------------------------------------------------------------

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

// ---- What cannot be --------------------------------------------------------------------------------------

TEST_F(DeviceCache, OutOfMemoryLeavesACacheThatCanBeUsed) {
  if (!device_memory_is_chosen()) GTEST_SKIP() << "all of a device's memory would have to be filled";
  const CacheShape shape{.head_dim = 64};
  const Projections small(shape, 40, 12), large(shape, 4000, 13);
  // Rows of a step are in the same memory.
  const auto tight = device_under_test(256 << 10);
  CacheDriver driver(on_device(shape.options(), tight), shape, pool);
  const SequenceId first = driver.add(small), second = driver.add(large);
  driver.step({{first, 20}});
  const auto until_full = [&] {
    for (;;) driver.step({{second, 8}});
  };
  EXPECT_THAT(error_of(until_full),
              AllOf(HasSubstr("out of memory"), HasSubstr("cache pages"), HasSubstr("shorter context")));
  driver.cache.free_sequence(second);
  expect_honest(driver.cache);
  driver.feed(first, 1);
  CacheDriver here(shape, pool);
  const SequenceId id = here.add(small);
  here.step({{id, 20}});
  here.feed(id, 1);
  expect_near(driver.output(first), here.output(id), 1e-5);
}

TEST_F(DeviceCache, PlansChangeNothingWhereMemoryEnds) {
  if (!device_memory_is_chosen()) GTEST_SKIP() << "all of a device's memory would have to be filled";
  const CacheShape shape{.layers = 4, .head_dim = 64};
  const Projections source(shape, 70, 14);
  const auto tight = device_under_test(640 << 10);
  CacheDriver driver(on_device(shape.options(), tight), shape, pool);
  const SequenceId id = driver.add(source);
  driver.step({{id, 64}});
  const Plan plan = mixed_plan(driver.cache, id, true);
  std::vector<void*> taken;
  while (void* memory = tight->allocate(4096)) taken.push_back(memory);
  const ByteLedger before = driver.cache.ledger();
  EXPECT_THAT(error_of([&] { driver.cache.apply(plan); }), HasSubstr("out of memory"));
  EXPECT_EQ(driver.cache.ledger().payload, before.payload);
  expect_honest(driver.cache);
  EXPECT_TRUE(driver.cache.page({id, 0, 0, 2, Side::kKey}).contiguous);
  for (void* memory : taken) tight->free(memory);
  driver.cache.apply(plan);
  driver.step({{id, 6}});
  EXPECT_FALSE(driver.cache.page({id, 0, 0, 2, Side::kKey}).contiguous);
}

TEST_F(DeviceCache, WhatItCannotDoIsRefusedByName) {
  const auto refused = [&](const CacheShape& shape, const std::string& what) {
    EXPECT_THAT(error_of([&] { KvCache(on_device(shape.options(), device), pool); }),
                AllOf(HasSubstr(what), HasSubstr(device->name()), HasSubstr("use --device cpu")));
  };
  refused({.page_tokens = 257}, "pages of 257 tokens");
  refused({.head_dim = 20}, "heads of 20 numbers");
  refused({.head_dim = 264}, "heads of 264 numbers");
  refused({.basis = KeyBasis::kPlain, .positions = PositionMode::kCacheRelative}, "cache-relative");
  const CacheShape shape;
  KvCache cache(on_device(shape.options(), device), pool);
  const SequenceId id = cache.add_sequence();
  EXPECT_THAT(error_of([&] { cache.map_attention(id); }), HasSubstr("use --device cpu"));
}

}  // namespace
}  // namespace kva
