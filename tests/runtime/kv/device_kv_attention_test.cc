// Attention of a cache on a device, against double and against the CPU.
#include <gtest/gtest.h>

#include <string>

#include "tests/runtime/kv/device_pair.h"
#include "tests/runtime/kv/rewriting.h"

namespace kva {
namespace {

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

// What heads have lost differs, and so do the positions that their queries and keys have.
TEST_F(DeviceCache, PositionsAreCountedInTheCacheAsItIs) {
  const CacheShape shape{.layers = 2,
                         .group = 3,
                         .head_dim = 16,
                         .page_tokens = 8,
                         .basis = KeyBasis::kPlain,
                         .positions = PositionMode::kCacheRelative};
  const Projections source(shape, 150, 20), other(shape, 60, 21);
  for (const int64_t chunk : {1, 5, 37}) {
    Pair pair(shape, device, pool);
    const SequenceId beside = pair.add(other), id = pair.add(source);
    pair.step({{beside, 20}, {id, 45}});
    Plan first;
    const TableAddress table{id, 0, 0}, upper{id, 1, 1};
    add_rewrite(first, pair.here.cache, table, 0, 1, {0, 3, 6});
    add_hiding(first, pair.here.cache, table, 1, {9, 15});
    add_hiding(first, pair.here.cache, table, 2, range(16, 24));
    add_rewrite(first, pair.here.cache, upper, 1, 1, {});
    pair.apply(first);
    while (pair.here.cache.tokens(id) < 82)
      pair.step({{id, std::min<int64_t>(chunk, 82 - pair.here.cache.tokens(id))}, {beside, 1}});
    Plan second;
    add_rewrite(second, pair.here.cache, table, 1, 3, {8, 10, 11, 13, 14});
    add_hiding(second, pair.here.cache, upper, 6, {58, 59, 63});
    pair.apply(second);
    while (pair.here.cache.tokens(id) < 150)
      pair.step({{id, std::min<int64_t>(chunk, 150 - pair.here.cache.tokens(id))}});
    pair.compare(id);
    pair.compare(beside);
  }
}

TEST_F(DeviceCache, PositionsInTheCacheAreThoseOfTheTextWhileNothingIsDropped) {
  CacheShape shape{.group = 2, .head_dim = 16, .page_tokens = 8, .basis = KeyBasis::kPlain};
  const Projections source(shape, 60, 22);
  std::vector<std::vector<float>> outputs;
  for (const PositionMode positions : {PositionMode::kOriginal, PositionMode::kCacheRelative}) {
    shape.positions = positions;
    CacheDriver driver(on_device(shape.options(), device), shape, pool);
    const SequenceId id = driver.add(source);
    driver.step({{id, 50}});
    driver.cache.apply(cut_elsewhere(driver.cache, {id, 0, 1}));
    driver.feed(id, 1);
    outputs.push_back(driver.output(id));
  }
  EXPECT_EQ(outputs[0], outputs[1]);
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

}  // namespace
}  // namespace kva
