// Plans on a cache on a device.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>

#include "tests/runtime/kv/device_pair.h"

namespace kva {
namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();

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

}  // namespace
}  // namespace kva
