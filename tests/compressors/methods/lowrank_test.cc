#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compressors/subspace.h"
#include "tests/compressors/compressed_cache.h"
#include "tests/compressors/relative_error.h"
#include "tests/error_of.h"

namespace kva {
namespace {

double counter(const CompressorStats& stats, const std::string& name) {
  for (const auto& [known, value] : stats.counters)
    if (known == name) return value;
  ADD_FAILURE() << "no counter " << name;
  return -1.0;
}

constexpr CacheShape kOneHead{
    .layers = 1, .kv_heads = 1, .head_dim = 16, .page_tokens = 16, .type = DType::kF16, .rope = false};

// Tokens [first, end) of K and V become combinations of `dimensions` fixed random directions.
void lie_in_subspace(Projections& p, int64_t width, int64_t first, int64_t end, int64_t dimensions,
                     unsigned seed) {
  for (auto* side : {&p.k, &p.v}) {
    const auto directions = normal_numbers(dimensions * width, seed++);
    for (int64_t t = first; t < end; ++t) {
      const std::vector<float> by(side->begin() + t * width, side->begin() + t * width + dimensions);
      for (int64_t i = 0; i < width; ++i) {
        float sum = 0.0f;
        for (int64_t d = 0; d < dimensions; ++d)
          sum += by[static_cast<std::size_t>(d)] * directions[static_cast<std::size_t>(d * width + i)];
        (*side)[static_cast<std::size_t>(t * width + i)] = sum;
      }
    }
  }
}

std::vector<float> page_of(const Projections& p, Side side, int64_t width, int64_t page_tokens,
                           int64_t page) {
  const auto& values = side == Side::kKey ? p.k : p.v;
  const auto first = values.begin() + page * page_tokens * width;
  return {first, first + page_tokens * width};
}

TEST(LowRank, TokensStayDenseUntilTheBasisExists) {
  ThreadPool pool(2);
  CompressedCache c("lowrank(rank=4, fit_tokens=60)", pool, kOneHead);
  Projections source(c.shape, 100, 1);
  lie_in_subspace(source, 16, 0, 100, 4, 10);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 63, 9);
  EXPECT_EQ(c.driver.cache.page({id, 0, 0, 0, Side::kKey}).codec, "dense(f16)");
  EXPECT_EQ(c.driver.cache.ledger().side, 0);
  c.feed(id, 1, 1);  // 60 tokens are 4 pages
  for (int64_t page = 0; page < 4; ++page) {
    for (const Side side : {Side::kKey, Side::kValue}) {
      EXPECT_EQ(c.driver.cache.page({id, 0, 0, page, side}).codec, "lowrank(rank=4) | dense(f16)");
      // The cache's f16, the basis's and the coefficients'.
      EXPECT_LT(relative_error(c.page(id, 0, 0, page, side), page_of(source, side, 16, 16, page)),
                3 * 0x1p-11);
    }
  }
  const ByteLedger ledger = c.driver.cache.ledger();
  EXPECT_EQ(ledger.payload, 64 * 4 * 2 * 2);
  EXPECT_EQ(ledger.side, 2 * 4 * 16 * 2);
  c.feed(id, 36, 36);
  EXPECT_EQ(c.driver.cache.ledger().payload, 96 * 4 * 2 * 2 + 4 * 16 * 2 * 2) << "and an open tail";
  EXPECT_EQ(counter(c.compressor.stats(), "lowrank.fits"), 2);
  EXPECT_EQ(counter(c.compressor.stats(), "lowrank.refreshes"), 0);
  EXPECT_EQ(counter(c.compressor.stats(), "lowrank.basis_bytes"), 2 * 4 * 16 * 2);
  c.free(id);
  EXPECT_EQ(c.driver.cache.ledger().side, 0);
}

TEST(LowRank, ATopicSwitchRenewsTheBasisOnce) {
  ThreadPool pool(2);
  Projections source(kOneHead, 288, 2);
  lie_in_subspace(source, 16, 0, 144, 4, 20);
  lie_in_subspace(source, 16, 144, 288, 4, 30);
  std::vector<std::vector<float>> of_chunks;
  for (const int64_t chunk : {16, 13, 288}) {
    CompressedCache with("lowrank(rank=4, fit_tokens=64, refresh=0.2)", pool, kOneHead);
    CompressedCache without("lowrank(rank=4, fit_tokens=64)", pool, kOneHead);
    const SequenceId id = with.driver.add(source);
    EXPECT_EQ(without.driver.add(source), id);
    if (chunk == 16) {
      with.feed(id, 144 + 48, 16);
      EXPECT_EQ(counter(with.compressor.stats(), "lowrank.refreshes"), 0);
      EXPECT_EQ(with.driver.cache.page({id, 0, 0, 9, Side::kValue}).codec, "dense(f16)") << "waits";
      EXPECT_EQ(with.driver.cache.ledger().side, 2 * 4 * 16 * 2);
    }
    with.feed(id, 288 - with.driver.cache.tokens(id), chunk);
    without.feed(id, 288, chunk);
    EXPECT_EQ(counter(with.compressor.stats(), "lowrank.refreshes"), 2) << "one a side";
    EXPECT_EQ(with.driver.cache.ledger().side, 2 * (2 * 4 * 16 * 2));
    of_chunks.emplace_back();
    for (int64_t page = 0; page < 18; ++page) {
      const auto expected = page_of(source, Side::kValue, 16, 16, page);
      const auto got = with.page(id, 0, 0, page, Side::kValue);
      EXPECT_LT(relative_error(got, expected), 3 * 0x1p-11) << page;
      EXPECT_EQ(relative_error(without.page(id, 0, 0, page, Side::kValue), expected) > 0.3, page >= 9)
          << page;
      of_chunks.back().insert(of_chunks.back().end(), got.begin(), got.end());
    }
    with.free(id);
    EXPECT_EQ(with.driver.cache.ledger().side, 0);
  }
  EXPECT_EQ(of_chunks[0], of_chunks[1]) << "chunks change when a basis is fitted, not on what";
  EXPECT_EQ(of_chunks[0], of_chunks[2]);
}

TEST(LowRank, RenewalsOfRandomTokensAreBoundedByTheirPrice) {
  ThreadPool pool(1);
  CompressedCache c("lowrank(rank=4, fit_tokens=64, refresh=0.01)", pool, kOneHead);
  const Projections source(c.shape, 320, 3);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 320, 16);
  EXPECT_EQ(counter(c.compressor.stats(), "lowrank.refreshes"), 2 * 4) << "one in 64 tokens a side";
}

TEST(LowRank, GroupsOfLayersStoreTheirCoefficientsOnce) {
  ThreadPool pool(2);
  CompressedCache c("lowrank(layers=2, rank=8, fit_tokens=32)", pool,
                    {.layers = 5, .kv_heads = 2, .head_dim = 16, .type = DType::kF16, .rope = false});
  Projections source(c.shape, 64, 4);
  // Layers of the fixture hold the same numbers, so two heads' 8 dimensions are a group's as well.
  lie_in_subspace(source, 32, 0, 64, 8, 40);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 64, 16);
  const ByteLedger ledger = c.driver.cache.ledger();
  // Groups of layers 0-1, 2-3 and 4, the last of half the width and so of half the rank.
  EXPECT_EQ(ledger.payload, 64 * (8 + 8 + 4) * 2 * 2);
  EXPECT_EQ(ledger.side, (2 * 8 * 64 + 4 * 32) * 2 * 2);
  for (const int layer : {0, 3})
    for (const Side side : {Side::kKey, Side::kValue})
      EXPECT_LT(relative_error(c.page(id, layer, 1, 2, side), c.page(id, layer == 0 ? 1 : 2, 1, 2, side)),
                0x1p-9);
  const auto read = c.page(id, 0, 1, 0, Side::kValue);
  std::vector<float> expected;
  for (int64_t t = 0; t < 16; ++t)
    expected.insert(expected.end(), source.v.begin() + t * 32 + 16, source.v.begin() + (t + 1) * 32);
  EXPECT_LT(relative_error(read, expected), 4 * 0x1p-11);
  EXPECT_EQ(c.driver.cache.page({id, 0, 0, 0, Side::kKey}).codec, "lowrank(rank=8) of 4 heads");
  c.free(id);
  EXPECT_EQ(c.driver.cache.ledger().side, 0);
}

TEST(LowRank, GroupsEndWhereLayersAreMissing) {
  ThreadPool pool(1);
  CompressedCache c("layers(0,2-4): lowrank(layers=2, rank=0.5, fit_tokens=32)", pool,
                    {.layers = 6, .kv_heads = 1, .head_dim = 8, .type = DType::kF16});
  const Projections source(c.shape, 32, 5);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 32, 32);
  const auto codec = [&](int layer) { return c.driver.cache.page({id, layer, 0, 0, Side::kKey}).codec; };
  EXPECT_EQ(codec(0), "lowrank(rank=4) | dense(f16)");
  EXPECT_EQ(codec(1), "dense(f16)");
  EXPECT_EQ(codec(2), "lowrank(rank=8) of 2 heads");
  EXPECT_EQ(codec(3), "lowrank(rank=8) of 2 heads");
  EXPECT_EQ(codec(4), "lowrank(rank=4) | dense(f16)");
}

TEST(LowRank, SequencesHaveBasesOfTheirOwnUnlessTheyBeginAlike) {
  ThreadPool pool(2);
  CompressedCache c("lowrank(rank=4, fit_tokens=32)", pool, kOneHead);
  const Projections a(c.shape, 90, 6), b(c.shape, 50, 7);
  const SequenceId ida = c.driver.add(a), idb = c.driver.add(b), again = c.driver.add(a);
  const int64_t pair = 2 * 4 * 16 * 2;
  c.step({{ida, 40}, {idb, 20}});
  EXPECT_EQ(c.driver.cache.ledger().side, pair);
  c.step({{idb, 30}, {ida, 50}});
  EXPECT_EQ(c.driver.cache.ledger().side, 2 * pair);
  c.feed(again, 64, 16);
  EXPECT_EQ(c.driver.cache.ledger().side, 2 * pair);
  const SequenceId fork = c.driver.cache.fork_sequence(ida);
  c.compressor.after_fork(ida, fork);
  c.driver.follow(fork, a);
  c.free(ida);
  EXPECT_EQ(c.driver.cache.ledger().side, 2 * pair);
  c.free(again);
  c.free(fork);
  EXPECT_EQ(c.driver.cache.ledger().side, pair);
  c.free(idb);
  EXPECT_EQ(c.driver.cache.ledger().side, 0);
}

TEST(LowRank, AForkGoesOnWithTheBasisOfItsPages) {
  ThreadPool pool(1);
  CompressedCache c("lowrank(rank=4, fit_tokens=64, refresh=0.2)", pool, kOneHead);
  Projections source(c.shape, 288, 2);
  lie_in_subspace(source, 16, 0, 144, 4, 20);
  lie_in_subspace(source, 16, 144, 288, 4, 30);
  Projections first_topic = source;
  for (std::size_t i = 0; i < 144 * 16; ++i) {
    first_topic.k[144 * 16 + i] = source.k[i];
    first_topic.v[144 * 16 + i] = source.v[i];
  }
  const SequenceId id = c.driver.add(source);
  c.feed(id, 288, 32);
  const SequenceId copy = c.driver.cache.fork_sequence(id, 128);
  c.compressor.after_fork(id, copy);
  c.driver.follow(copy, first_topic);
  c.feed(copy, 160, 32);
  EXPECT_EQ(counter(c.compressor.stats(), "lowrank.fits"), 4) << "two a side, none for the copy";
  EXPECT_LT(relative_error(c.page(copy, 0, 0, 16, Side::kKey), page_of(first_topic, Side::kKey, 16, 16, 16)),
            3 * 0x1p-11);
}

TEST(LowRank, ExactAndRandomizedStoreNearlyTheSame) {
  ThreadPool pool(2);
  Projections source(kOneHead, 64, 8);
  lie_in_subspace(source, 16, 0, 64, 4, 50);
  const auto page = [&](const std::string& recipe) {
    CompressedCache c(recipe, pool, kOneHead);
    const SequenceId id = c.driver.add(source);
    c.feed(id, 64, 64);
    return c.page(id, 0, 0, 3, Side::kKey);
  };
  EXPECT_LT(relative_error(page("lowrank(rank=4, fit_tokens=64, method=randomized)"),
                           page("lowrank(rank=4, fit_tokens=64)")),
            3 * 0x1p-11);
}

TEST(LowRank, NumbersThatAreNotFiniteAreNamed) {
  ThreadPool pool(1);
  for (const char* recipe : {"lowrank(fit_tokens=32)", "lowrank(fit_tokens=32, refresh=0.5)",
                             "lowrank(layers=2, fit_tokens=32)", "lowrank(fit_tokens=96)"}) {
    CompressedCache c(recipe, pool, {.layers = 2, .kv_heads = 2, .head_dim = 16, .type = DType::kF16});
    Projections source(c.shape, 96, 9);
    source.v[65 * 32 + 20] = std::numeric_limits<float>::infinity();
    const SequenceId id = c.driver.add(source);
    EXPECT_THAT(
        error_of([&] { c.feed(id, 96, 16); }),
        testing::AllOf(testing::HasSubstr(", V of the page at position 64: token 1: expected finite")))
        << recipe;
  }
}

TEST(LowRank, ParametersThatCannotBeAreRefusedByName) {
  ThreadPool pool(1);
  for (const auto& [recipe, error] : std::vector<std::pair<std::string, std::string>>{
           {"lowrank(rank=0)", "rank"},
           {"lowrank(rank=0.0)", "rank"},
           {"lowrank(rank=1.5)", "rank"},
           {"lowrank(rank=-3)", "rank"},
           {"lowrank(energy=0)", "energy"},
           {"lowrank(energy=1.1)", "energy"},
           {"lowrank(refresh=0)", "refresh"},
           {"lowrank(layers=0)", "layers"},
           {"lowrank(method=guess)", "method"},
           {"lowrank(rank=4, energy=0.9)", "expected rank or energy, found both"},
           {"lowrank(rank=17)", "lowrank(rank=17): expected at most 16"},
           {"lowrank(layers=2, rank=129)", "lowrank(rank=129): expected at most 64"},
           {"lowrank(rank=8, fit_tokens=7)", "lowrank(fit_tokens=7): expected at least 8"}})
    EXPECT_THAT(error_of([&] { CompressedCache c(recipe, pool); }), testing::HasSubstr(error)) << recipe;
  EXPECT_THAT(
      error_of([&] {
        CompressedCache c("lowrank(layers=100, rank=1)", pool,
                          {.layers = 40, .kv_heads = 2, .head_dim = 128});
      }),
      testing::HasSubstr("lowrank(layers=40): expected groups at most 8192 numbers wide, found 10240"));
  EXPECT_THAT(error_of([&] {
                CompressedCache c("lowrank(layers=16, rank=1, fit_tokens=1048576)", pool,
                                  {.layers = 16, .kv_heads = 4, .head_dim = 128});
              }),
              testing::HasSubstr("lowrank(fit_tokens=1048576): expected at most 8192 tokens"));
}

TEST(LowRank, CodebooksOfWholeTokensCannotFollow) {
  ThreadPool pool(1);
  CompressedCache c("lowrank(fit_tokens=16) | pq(m=4)", pool);
  const Projections source(c.shape, 16, 1);
  const SequenceId id = c.driver.add(source);
  EXPECT_THAT(error_of([&] { c.feed(id, 16, 16); }), testing::HasSubstr("put no step before pq"));
}

TEST(LowRank, RotationsOfWholeTokensCannotFollow) {
  ThreadPool pool(1);
  CompressedCache c("lowrank(rank=6, fit_tokens=16) | turboquant", pool);
  const Projections source(c.shape, 16, 1);
  const SequenceId id = c.driver.add(source);
  EXPECT_THAT(error_of([&] { c.feed(id, 16, 16); }),
              testing::HasSubstr("cannot hold rows of 6 coefficients"));
}

TEST(LowRank, SaysFromWhichLengthItPays) {
  ThreadPool pool(1);
  const auto remarks = [&](const std::string& recipe) {
    return CompressedCache(recipe, pool, kOneHead).compressor.stats().remarks;
  };
  EXPECT_THAT(remarks("lowrank(rank=8)"), testing::IsEmpty());
  // 15 * 16 / (16 - 15) = 240 tokens.
  EXPECT_THAT(remarks("lowrank(rank=15, fit_tokens=32)"),
              testing::ElementsAre(testing::HasSubstr("240 tokens")));
  EXPECT_THAT(remarks("lowrank(rank=16)"), testing::ElementsAre(testing::HasSubstr("saves nothing")));
  const CacheShape wide{.layers = 40, .kv_heads = 1, .head_dim = 128};
  CompressedCache c("lowrank(layers=40, rank=4100)", pool, wide);
  EXPECT_THAT(c.compressor.stats().remarks, testing::Contains(testing::HasSubstr("more than 4096")));
}

}  // namespace
}  // namespace kva
