#include <gmock/gmock.h>

#include "compressors/codecs/minicache_codec.h"
#include "runtime/error.h"
#include "tests/compressors/compressed_cache.h"
#include "tests/error_of.h"

namespace kva {
namespace {

// Two layers, one head of two numbers, one page of two tokens; V of the layers as given.
class TwoLayers {
 public:
  TwoLayers(const std::string& recipe, const std::vector<float>& lower, const std::vector<float>& upper)
      : cache(options(), pool), compressor(Recipe::parse(recipe), cache, pool) {
    const SequenceId id = cache.add_sequence();
    const Batch batch{{{id, 0, 2, 0}}};
    const std::vector<float> keys{1, 0, 0, 1};
    for (const auto& [layer, values] : {std::pair{0, &lower}, std::pair{1, &upper}})
      cache.append(layer, batch, MatView<const float>(keys.data(), 2, 2),
                   MatView<const float>(values->data(), 2, 2));
    cache.end_step(batch);
    compressor.after_step(batch, {});
  }
  std::vector<float> values(int layer) {
    std::vector<float> rows(4);
    cache.read_page(0, layer, 0, 0, Side::kValue, MatView<float>(rows.data(), 2, 2));
    return rows;
  }

  static KvCacheOptions options() {
    return CacheShape{.layers = 2, .kv_heads = 1, .head_dim = 2, .page_tokens = 2, .rope = false}.options();
  }
  ThreadPool pool{1};
  KvCache cache;
  Compressor compressor;
};

TEST(MiniCache, DirectionsAreHalfwayAndLengthsTheirOwn) {
  // Token 0: (2, 0) and (0, 3), a right angle; token 1: (4, 0) and (8, 0), none.
  TwoLayers pair("side(v): minicache(start=0, t=0.5, retain=0)", {2, 0, 4, 0}, {0, 3, 8, 0});
  const float half = std::sqrt(0.5f);
  const std::vector<float> lower{2 * half, 2 * half, 4, 0}, upper{3 * half, 3 * half, 8, 0};
  const auto got_lower = pair.values(0), got_upper = pair.values(1);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(got_lower[i], lower[i], 4 * 0x1p-10) << i;
    EXPECT_NEAR(got_upper[i], upper[i], 4 * 0x1p-10) << i;
  }
}

TEST(MiniCache, TLeansTowardsTheUpperLayer) {
  // At a right angle e = (sin(0.4 * 90°), sin(0.6 * 90°)) for t = 0.6.
  TwoLayers pair("side(v): minicache(start=0, t=0.6, retain=0)", {1, 0, 1, 0}, {0, 1, 1, 0});
  EXPECT_NEAR(pair.values(0)[0], 0.587785f, 0x1p-10);
  EXPECT_NEAR(pair.values(0)[1], 0.809017f, 0x1p-10);
}

TEST(MiniCache, TheMostDivergentTokensAreKeptWhole) {
  TwoLayers pair("side(v): minicache(start=0, t=0.5, retain=0.5)", {2, 0, 4, 1}, {0, 3, 8, 2});
  EXPECT_EQ(pair.values(0)[0], 2);
  EXPECT_EQ(pair.values(0)[1], 0);
  EXPECT_EQ(pair.values(1)[0], 0);
  EXPECT_EQ(pair.values(1)[1], 3);
}

TEST(MiniCache, BytesAreThoseOfSharedDirectionsLengthsAndKeptTokens) {
  const auto codec = make_minicache_codec(0.05);
  // 64 tokens: 64 lengths, ceil(3.2) = 4 kept tokens with index and row.
  EXPECT_EQ(codec->bytes(64, 64), 64 * 2 + 4 * 2 + 4 * 64 * 2);
  EXPECT_EQ(codec->scale_bytes(64, 64), 64 * 2 + 4 * 2);
  EXPECT_EQ(codec->bytes(0, 64), 0);

  ThreadPool pool(1);
  CompressedCache c("minicache(start=0, retain=0.05)", pool,
                    {.layers = 2, .kv_heads = 1, .head_dim = 64, .page_tokens = 64, .type = DType::kF16});
  const Projections source(c.shape, 64, 1);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 64, 64);
  const ByteLedger ledger = c.driver.cache.ledger();
  const int64_t sides = 2;  // K and V, one pair of layers each
  EXPECT_EQ(ledger.payload + ledger.scales, sides * (64 * 64 * 2 + 2 * codec->bytes(64, 64)));
  EXPECT_EQ(ledger.scales, sides * 2 * codec->scale_bytes(64, 64));
}

TEST(MiniCache, AnOddTopLayerStaysAlone) {
  ThreadPool pool(1);
  CompressedCache c("minicache(merge_start_layer=2)", pool,
                    {.layers = 5, .head_dim = 16, .type = DType::kF16});
  const Projections source(c.shape, 16, 2);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 16, 16);
  for (const int layer : {0, 1, 4})
    EXPECT_EQ(c.driver.cache.page({id, layer, 0, 0, Side::kKey}).codec, "dense(f16)") << layer;
  for (const int layer : {2, 3})
    EXPECT_EQ(c.driver.cache.page({id, layer, 0, 0, Side::kKey}).codec, "minicache(retain=0.05)") << layer;
  EXPECT_THAT(error_of([&] { CompressedCache past("minicache(merge_start_layer=18)", pool); }),
              testing::HasSubstr("minicache(start=18): expected a layer below 4"));
}

}  // namespace
}  // namespace kva
