// dedup and layershare: what is shared, what is freed, and that sharing changes nothing it must not.
#include <gmock/gmock.h>

#include "runtime/error.h"
#include "tests/compressors/compressed_cache.h"
#include "tests/error_of.h"

namespace kva {
namespace {

int64_t references(const CompressedCache& c, SequenceId id, int layer, int head, int64_t page, Side side) {
  return c.driver.cache.page({id, layer, head, page, side}).references;
}

TEST(Dedup, ASecondRequestOfTheSameTextCostsOnlyItsTail) {
  ThreadPool pool(2);
  CompressedCache c("dedup(exact, scope=head)", pool, {.layers = 2, .head_dim = 16, .type = DType::kF16});
  const Projections source(c.shape, 70, 1);
  const SequenceId first = c.driver.add(source), second = c.driver.add(source);
  c.feed(first, 70, 70);
  const ByteLedger before = c.driver.cache.ledger();
  c.feed(second, 70, 70);
  const ByteLedger after = c.driver.cache.ledger();
  const int64_t tail = 6 * 16 * 2 * 2 * 2 * 2;  // tokens x dim x f16 x sides x heads x layers
  EXPECT_EQ(after.payload - before.payload, tail);
  EXPECT_EQ(references(c, first, 1, 1, 3, Side::kKey), 2);
  EXPECT_EQ(c.driver.output(first), c.driver.output(second));
  c.free(first);
  EXPECT_EQ(references(c, second, 1, 1, 3, Side::kKey), 1);
}

TEST(Dedup, DifferentTextsShareNothing) {
  ThreadPool pool(1);
  CompressedCache c("dedup(exact, scope=head)", pool);
  const Projections a(c.shape, 64, 2), b(c.shape, 64, 3);
  const SequenceId ida = c.driver.add(a), idb = c.driver.add(b);
  c.step({{ida, 64}, {idb, 64}});
  EXPECT_EQ(c.compressor.stats().plans, 0);
}

// Tokens 16 to 31 are tokens 0 to 15 again.
Projections repeated(const CacheShape& shape) {
  Projections source(shape, 40, 4);
  const auto page = static_cast<std::ptrdiff_t>(16 * shape.kv_heads * shape.head_dim);
  std::copy_n(source.k.begin(), page, source.k.begin() + page);
  std::copy_n(source.v.begin(), page, source.v.begin() + page);
  return source;
}

TEST(Dedup, EqualContentElsewhereIsFoundWhereKeysCarryNoPosition) {
  ThreadPool pool(1);
  for (const auto& [recipe, of_keys] : {std::pair{"dedup(exact, scope=head)", 1},
                                        std::pair{"keys(page-relative); dedup(exact, scope=head)", 2},
                                        std::pair{"keys(plain); dedup(exact, scope=head)", 2}}) {
    CompressedCache c(recipe, pool, {.layers = 1, .head_dim = 16, .type = DType::kF16});
    const Projections source = repeated(c.shape);
    const SequenceId id = c.driver.add(source);
    c.feed(id, 40, 8);
    EXPECT_EQ(references(c, id, 0, 0, 1, Side::kKey), of_keys) << recipe;
    EXPECT_EQ(references(c, id, 0, 0, 1, Side::kValue), 2) << recipe;
  }
}

TEST(Dedup, SharingBeforeALossyFormatIsStillExact) {
  ThreadPool pool(1);
  CompressedCache with("keys(plain); dedup(exact, scope=head) | dense(bf16)", pool);
  CompressedCache without("keys(plain); dense(bf16)", pool);
  const Projections source = repeated(with.shape);
  const SequenceId a = with.driver.add(source), b = without.driver.add(source);
  with.feed(a, 40, 8);
  without.feed(b, 40, 8);
  EXPECT_EQ(with.driver.output(a), without.driver.output(b));
  EXPECT_LT(with.driver.cache.ledger().payload, without.driver.cache.ledger().payload);
}

TEST(Dedup, NearPagesShareOverTheThresholdOnly) {
  ThreadPool pool(1);
  // Page 1 is page 0 with a tenth of noise: a cosine of 1 / sqrt(1 + 0.01).
  const CacheShape shape{
      .layers = 1, .kv_heads = 1, .head_dim = 16, .basis = KeyBasis::kPlain, .type = DType::kF16};
  Projections source(shape, 32, 5);
  const Projections noise(shape, 32, 6);
  for (std::size_t i = 0; i < 256; ++i) source.v[256 + i] = source.v[i] + 0.1f * noise.v[i];
  for (const auto& [recipe, shared] :
       {std::pair{"keys(plain); dedup(cos=0.98)", true}, std::pair{"keys(plain); dedup(cos=0.999)", false},
        std::pair{"keys(plain); dedup(l2=0.8)", true}, std::pair{"keys(plain); dedup(l2=0.95)", false}}) {
    CompressedCache c(recipe, pool, shape);
    const SequenceId id = c.driver.add(source);
    c.feed(id, 32, 16);
    EXPECT_EQ(references(c, id, 0, 0, 1, Side::kValue), shared ? 2 : 1) << recipe;
    EXPECT_EQ(references(c, id, 0, 0, 1, Side::kKey), 1) << recipe;
    if (shared) {
      EXPECT_EQ(c.page(id, 0, 0, 1, Side::kValue), c.page(id, 0, 0, 0, Side::kValue));
    }
  }
}

TEST(Dedup, AForkThatDivergesCopiesItsTailOnly) {
  ThreadPool pool(1);
  CompressedCache c("dedup(exact)", pool, {.layers = 1, .kv_heads = 1, .head_dim = 16, .type = DType::kF16});
  const Projections source(c.shape, 60, 7), other(c.shape, 60, 8);
  const SequenceId trunk = c.driver.add(source);
  c.feed(trunk, 40, 40);
  const int64_t before = c.driver.cache.ledger().payload;
  const SequenceId branch = c.driver.cache.fork_sequence(trunk);
  c.driver.follow(branch, other);
  EXPECT_EQ(c.driver.cache.ledger().payload, before);
  c.feed(branch, 20, 1);
  EXPECT_EQ(references(c, trunk, 0, 0, 1, Side::kKey), 2);
  EXPECT_EQ(c.driver.cache.ledger().payload, before + (8 + 20) * 16 * 2 * 2);
}

TEST(LayerShare, LayersReadThePagesBelow) {
  ThreadPool pool(1);
  CompressedCache c("layershare(start=1, every=2)", pool, {.layers = 5, .head_dim = 16, .type = DType::kF16});
  const Projections source(c.shape, 32, 9);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 32, 16);
  // Layers 1 and 2 share, 3 and 4 share, 0 is alone.
  for (const auto& [layer, expected] : {std::pair{0, 1}, {1, 2}, {2, 2}, {3, 2}, {4, 2}})
    EXPECT_EQ(references(c, id, layer, 1, 1, Side::kKey), expected) << layer;
  EXPECT_EQ(c.driver.cache.page({id, 1, 0, 0, Side::kValue}).side,
            c.driver.cache.page({id, 2, 0, 0, Side::kValue}).side);
  EXPECT_EQ(c.driver.cache.ledger().payload, 3 * 32 * 2 * 16 * 2 * 2);
}

TEST(LayerShare, ALayerPastTheDepthIsRefused) {
  ThreadPool pool(1);
  EXPECT_THAT(error_of([&] { CompressedCache c("layershare(start=4)", pool); }),
              testing::HasSubstr("layershare(start=4): expected a layer below 4"));
}

}  // namespace
}  // namespace kva
