// What becomes of the cache when strategies take tokens out of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>

#include "runtime/error.h"
#include "tests/compressors/compressed_cache.h"
#include "tests/error_of.h"

namespace kva {
namespace {

using testing::HasSubstr;

constexpr CacheShape kShape{.layers = 2, .kv_heads = 2, .group = 2, .head_dim = 16, .type = DType::kF16};

std::vector<int32_t> sinks_and_window(int32_t sinks, int32_t first, int32_t end) {
  std::vector<int32_t> positions(static_cast<std::size_t>(sinks + end - first));
  std::iota(positions.begin(), positions.begin() + sinks, 0);
  std::iota(positions.begin() + sinks, positions.end(), first);
  return positions;
}

// Tokens on full pages that take room and are not read.
int64_t masked(const KvCache& cache, SequenceId id, int layer, int kv_head) {
  int64_t tokens = 0;
  for (int64_t page = 0; page < cache.pages(id, layer, kv_head); ++page)
    tokens += cache.page({id, layer, kv_head, page, Side::kKey}).tokens;
  return tokens - std::ssize(read_positions(cache, id, layer, kv_head));
}

TEST(EvictedCache, HoldsTheFirstAndTheLatestAfterEveryStep) {
  ThreadPool pool(2);
  CompressedCache c("AttentionSink(sink=3, window=40)", pool, kShape);
  const Projections source(kShape, 300, 1);
  const SequenceId id = c.driver.add(source);
  for (int64_t tokens = 0; tokens < 300;) {
    const int64_t step = tokens < 200 ? 25 : 1;
    c.feed(id, step, step);
    tokens += step;
    for (int layer = 0; layer < 2; ++layer)
      for (int head = 0; head < 2; ++head) {
        const auto first = static_cast<int32_t>(std::max<int64_t>(3, tokens - 40));
        ASSERT_EQ(c.positions(id, layer, head), sinks_and_window(3, first, static_cast<int32_t>(tokens)));
        ASSERT_LT(masked(c.driver.cache, id, layer, head), kShape.page_tokens) << tokens;
      }
  }
  const CompressorStats stats = c.compressor.stats();
  const auto counted = [&](const std::string& name) {
    for (const auto& [counter, value] : stats.counters)
      if (counter == name) return value;
    return -1.0;
  };
  EXPECT_EQ(counted("attentionsink.dropped_tokens"), (300 - 43) * 4);
  double by_age = 0;
  for (int quarter = 1; quarter <= 4; ++quarter)
    by_age += counted("attentionsink.dropped_age_quarter_" + std::to_string(quarter));
  EXPECT_EQ(by_age, (300 - 43) * 4);
  double by_class = 0;
  for (const char* name : {"special", "punctuation", "space", "word"})
    by_class += counted("attentionsink.dropped_" + std::string(name) + "_tokens");
  EXPECT_EQ(by_class, (300 - 43) * 4);
  EXPECT_EQ(stats.predicted_bytes, stats.freed_bytes);
}

TEST(EvictedCache, DoesNotGrowWithTheSequence) {
  ThreadPool pool(1);
  CompressedCache c("AttentionSink(sink=4, window=60)", pool, kShape);
  const Projections source(kShape, 2000, 2);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 200, 20);
  const int64_t page = 2 * 2 * 2 * kShape.page_tokens * kShape.head_dim * 2;  // in every table, both sides
  const int64_t early = c.driver.cache.ledger().payload;
  c.feed(id, 1800, 20);
  EXPECT_NEAR(c.driver.cache.ledger().payload, early, page);
}

TEST(EvictedCache, TokensOfDenseFormatsSurviveManyPackings) {
  ThreadPool pool(1);
  CompressedCache c("H2O(keep=24, recent=8)", pool, kShape), dense("dense(f16)", pool, kShape);
  const Projections source(kShape, 400, 3);
  const SequenceId id = c.driver.add(source), same = dense.driver.add(source);
  c.feed(id, 400, 5);
  dense.feed(same, 400, 5);
  std::vector<float> kept, all;
  for (int64_t page = 0; page < c.driver.cache.pages(id, 1, 1); ++page) {
    const PageFacts facts = c.driver.cache.page({id, 1, 1, page, Side::kValue});
    const auto rows = c.page(id, 1, 1, page, Side::kValue);
    for (int64_t t = 0; t < facts.tokens; ++t) {
      const int64_t position =
          facts.contiguous ? facts.start + t : facts.positions[static_cast<std::size_t>(t)];
      const auto original = dense.page(same, 1, 1, position / kShape.page_tokens, Side::kValue);
      for (int64_t i = 0; i < kShape.head_dim; ++i)
        ASSERT_EQ(rows[static_cast<std::size_t>(t * kShape.head_dim + i)],
                  original[static_cast<std::size_t>(position % kShape.page_tokens * kShape.head_dim + i)])
            << position;
    }
  }
}

TEST(EvictedCache, CodedPagesAreCodedAgainAndSaidTo) {
  ThreadPool pool(1);
  CompressedCache c("quant(bits=8) | Random(keep=0.3)", pool, kShape);
  const Projections source(kShape, 200, 4);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 200, 10);
  ASSERT_EQ(c.compressor.stats().remarks.size(), 1u);
  EXPECT_THAT(c.compressor.stats().remarks[0], HasSubstr("coded again when their pages were packed"));
  CompressedCache plain("Random(keep=0.3)", pool, kShape);
  plain.feed(plain.driver.add(source), 200, 10);
  EXPECT_TRUE(plain.compressor.stats().remarks.empty());
}

TEST(EvictedCache, HeadsDifferInLengthAndTheCacheShrinksByHead) {
  ThreadPool pool(2);
  const CacheShape shape{.layers = 1, .kv_heads = 4, .group = 1, .head_dim = 16, .type = DType::kF16};
  CompressedCache c("AdaKV(window=16, kernel=1, capacity=0.25, floor=0)", pool, shape);
  // The first head's queries look at single tokens, the last one's at all alike.
  Projections source(shape, 256, 5);
  for (int64_t t = 0; t < 256; ++t)
    for (int64_t i = 0; i < 64; ++i) source.q[static_cast<std::size_t>(t * 64 + i)] *= i < 16 ? 4.0f : 0.01f;
  const SequenceId id = c.driver.add(source);
  c.prompt(id, 256, 256);
  std::vector<int64_t> kept;
  for (int head = 0; head < 4; ++head) kept.push_back(std::ssize(c.positions(id, 0, head)));
  EXPECT_NEAR(std::accumulate(kept.begin(), kept.end(), int64_t{0}), 4 * 64, 4);
  EXPECT_NE(kept.front(), kept.back());
  for (int head = 0; head < 4; ++head) EXPECT_LT(masked(c.driver.cache, id, 0, head), shape.page_tokens);
  CompressedCache dense("dense(f16)", pool, shape);
  dense.prompt(dense.driver.add(source), 256, 256);
  EXPECT_LT(c.driver.cache.ledger().payload, dense.driver.cache.ledger().payload * 0.35);
}

TEST(EvictedCache, FullHeadsGiveTheFullCachesBits) {
  ThreadPool pool(2);
  const Projections source(kShape, 200, 6);
  const auto output = [&](const std::string& recipe) {
    CompressedCache c(recipe, pool, kShape);
    const SequenceId id = c.driver.add(source);
    c.prompt(id, 120, 40);
    c.feed(id, 80, 1);
    return c.driver.output(id);
  };
  EXPECT_EQ(output("FastGen(T=1)"), output("dense(f16)"));
  EXPECT_NE(output("FastGen(T=0.3, r_f=0.1, r_l=0.1)"), output("dense(f16)"));
}

TEST(EvictedCache, AForkKeepsWhatItHas) {
  ThreadPool pool(1);
  CompressedCache c("Random(keep=0.4)@tokens>100", pool, kShape);
  const Projections source(kShape, 200, 7);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 96, 32);
  const SequenceId copy = c.driver.cache.fork_sequence(id);
  c.compressor.after_fork(id, copy);
  c.driver.follow(copy, source);
  c.feed(id, 100, 20);
  EXPECT_EQ(c.positions(copy, 0, 0), sinks_and_window(0, 0, 96));
  c.feed(copy, 100, 20);
  EXPECT_EQ(c.positions(copy, 1, 1), c.positions(id, 1, 1));
  c.free(id);
  c.free(copy);
  EXPECT_EQ(c.driver.cache.ledger().payload, 0);
}

TEST(EvictedCache, ClassesNeedATokenizer) {
  ThreadPool pool(1);
  KvCache cache(kShape.options(), pool);
  const Recipe recipe = Recipe::parse("FastGen(T=0.9)");
  EXPECT_THAT(error_of([&] { Compressor(recipe, cache, pool); }), HasSubstr("expected a tokenizer"));
}

TEST(TokenClass, TellsPunctuationFromWordsAndSpace) {
  for (const char* text : {",", " .", "...\n", "\xe2\x80\x94", "$", " (\"", "+="})
    EXPECT_EQ(text_class(text), TokenClass::kPunctuation) << text;
  for (const char* text : {"", " ", "\n\n", "\t", "\xc2\xa0"})
    EXPECT_EQ(text_class(text), TokenClass::kSpace) << text;
  for (const char* text : {"a", " the", "42", "don't", "\xc3", "\xe4\xb8\xad", "x."})
    EXPECT_EQ(text_class(text), TokenClass::kWord) << text;
}

}  // namespace
}  // namespace kva
