#include "runtime/kv/kv_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "runtime/error.h"
#include "tests/runtime/kv/cache_fixture.h"

namespace kva {
namespace {

double largest_difference(const std::vector<float>& got, const std::vector<double>& expected) {
  double most = 0.0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(got[i] - expected[i]);
    if (!(difference <= most)) most = difference;
  }
  return most;
}

// ---- Attention against the naive double reference ------------------------------------------------------

struct AttentionCase {
  int head_dim;
  int group;
  int page_tokens;
};

class KvAttention : public testing::TestWithParam<AttentionCase> {};

TEST_P(KvAttention, AgreesWithDoubleForEveryBasisAndChunking) {
  const AttentionCase c = GetParam();
  ThreadPool pool(2);
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative}) {
    const CacheShape shape{
        .group = c.group, .head_dim = c.head_dim, .page_tokens = c.page_tokens, .basis = basis};
    const Projections source(shape, 70, 1);
    const auto expected = naive_attention(shape, source);
    for (const int64_t chunk : {1, 7, 16, 17, 70}) {
      CacheDriver driver(shape, pool);
      const SequenceId id = driver.add(source);
      driver.feed(id, chunk);
      EXPECT_LT(largest_difference(driver.output(id), expected), 1e-5)
          << "basis " << static_cast<int>(basis) << " chunk " << chunk;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, KvAttention,
                         testing::Values(AttentionCase{8, 1, 1}, AttentionCase{8, 3, 16},
                                         AttentionCase{20, 3, 8}, AttentionCase{64, 3, 16},
                                         AttentionCase{64, 9, 17}, AttentionCase{80, 1, 16},
                                         AttentionCase{128, 9, 64}, AttentionCase{64, 1, 128}),
                         [](const auto& tested) {
                           const AttentionCase& c = tested.param;
                           return "dim" + std::to_string(c.head_dim) + "group" + std::to_string(c.group) +
                                  "page" + std::to_string(c.page_tokens);
                         });

TEST(KvCache, LongContextsCrossRunsTilesAndBlocks) {
  ThreadPool pool(2);
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative}) {
    const CacheShape shape{.kv_heads = 1, .group = 3, .head_dim = 20, .page_tokens = 17, .basis = basis};
    const Projections source(shape, 1300, 2);
    const auto expected = naive_attention(shape, source);
    CacheDriver driver(shape, pool);
    const SequenceId id = driver.add(source);
    for (const int64_t tokens : {600, 1, 5, 600, 3}) driver.step({{id, tokens}});
    driver.feed(id, 1);
    // Rotating in two steps rounds the angle twice: 1,300 radians are known to 2^-14 each time.
    EXPECT_LT(largest_difference(driver.output(id), expected),
              basis == KeyBasis::kPageRelative ? 1e-4 : 1e-5);
  }
}

TEST(KvCache, LearnedPositionsNeedNoRope) {
  ThreadPool pool(1);
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative}) {
    const CacheShape shape{.head_dim = 64, .basis = basis, .rope = false};
    const Projections source(shape, 40, 3);
    CacheDriver driver(shape, pool);
    const SequenceId id = driver.add(source);
    driver.step({{id, 33}});
    driver.feed(id, 1);
    EXPECT_LT(largest_difference(driver.output(id), naive_attention(shape, source)), 1e-5);
  }
}

TEST(KvCache, HalfPrecisionPagesErrAsTheirTypeImplies) {
  ThreadPool pool(1);
  for (const DType type : {DType::kF16, DType::kBF16}) {
    const CacheShape shape{.group = 3, .head_dim = 64, .type = type};
    const Projections source(shape, 100, 4);
    const auto expected = naive_attention(shape, source);
    for (const int64_t chunk : {1, 100}) {
      CacheDriver driver(shape, pool);
      const SequenceId id = driver.add(source);
      driver.feed(id, chunk);
      // Values of at most about 4 are rounded to 11 or 8 bits, and scores by a few such steps.
      const double step = type == DType::kF16 ? 0x1p-11 : 0x1p-8;
      EXPECT_LT(largest_difference(driver.output(id), expected), 8 * step);
      EXPECT_GT(largest_difference(driver.output(id), expected), step / 64) << "nothing was rounded";
    }
  }
}

// ---- Determinism ---------------------------------------------------------------------------------------

TEST(KvCache, ResultsAreBitEqualAtAnyThreadCountAndInAnyCompany) {
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPageRelative}) {
    const CacheShape shape{.kv_heads = 3, .group = 3, .head_dim = 64, .basis = basis, .type = DType::kF16};
    const Projections a(shape, 1400, 5), b(shape, 333, 6), c(shape, 90, 7);
    ThreadPool one(1), three(3);

    const auto alone = [&](const Projections& source, int64_t prompt, ThreadPool& pool) {
      CacheDriver driver(shape, pool);
      const SequenceId id = driver.add(source);
      driver.step({{id, prompt}});
      driver.feed(id, 1);
      return driver.output(id);
    };
    const auto of_a = alone(a, 1380, one), of_b = alone(b, 313, one), of_c = alone(c, 70, one);
    EXPECT_EQ(of_a, alone(a, 1380, three));

    CacheDriver together(shape, three);
    const SequenceId ida = together.add(a), idb = together.add(b), idc = together.add(c);
    together.step({{idb, 313}, {ida, 1380}, {idc, 70}});
    for (int i = 0; i < 20; ++i) together.step({{idc, 1}, {ida, 1}, {idb, 1}});
    EXPECT_EQ(together.output(ida), of_a);
    EXPECT_EQ(together.output(idb), of_b);
    EXPECT_EQ(together.output(idc), of_c);
  }
}

// ---- Pages, sharing and the ledger ---------------------------------------------------------------------

void expect_honest(const KvCache& cache) {
  const ByteLedger ledger = cache.ledger();
  EXPECT_EQ(ledger.held() + ledger.workspace, cache.backend().allocated_bytes());
  EXPECT_GE(ledger.peak, ledger.held());
  EXPECT_GE(ledger.slack, 0);
}

// Bytes of one token of one layer's KV head, both sides.
int64_t token_bytes(const CacheShape& shape) { return 2 * shape.head_dim * dtype_bytes(shape.type); }

TEST(KvCache, LedgerAgreesWithTheAllocatorAfterEveryOperation) {
  for (const DType type : {DType::kF32, DType::kF16}) {
    const CacheShape shape{.layers = 3, .group = 3, .head_dim = 20, .page_tokens = 8, .type = type};
    ThreadPool pool(2);
    const Projections a(shape, 100, 8), b(shape, 41, 9);
    CacheDriver driver(shape, pool);
    KvCache& cache = driver.cache;
    expect_honest(cache);
    const SequenceId ida = driver.add(a);
    const SequenceId idb = driver.add(b);
    expect_honest(cache);
    const int64_t per_token = token_bytes(shape) * shape.layers * shape.kv_heads;
    driver.step({{ida, 30}, {idb, 9}});
    expect_honest(cache);
    EXPECT_EQ(cache.ledger().payload, 39 * per_token);
    while (cache.tokens(idb) < 41) {
      driver.step({{ida, 2}, {idb, 1}});
      expect_honest(cache);
      EXPECT_EQ(cache.ledger().payload, (cache.tokens(ida) + cache.tokens(idb)) * per_token);
    }
    const SequenceId fork = cache.fork_sequence(ida);
    expect_honest(cache);
    EXPECT_EQ(cache.ledger().payload, (cache.tokens(ida) + cache.tokens(idb)) * per_token) << "shared";
    cache.free_sequence(ida);
    expect_honest(cache);
    EXPECT_EQ(cache.ledger().payload, (cache.tokens(fork) + cache.tokens(idb)) * per_token);
    const int64_t peak = cache.ledger().peak;
    cache.free_sequence(fork);
    cache.free_sequence(idb);
    expect_honest(cache);
    EXPECT_EQ(cache.ledger().payload, 0);
    EXPECT_EQ(cache.ledger().slack, 0) << "slabs of freed pages go back";
    EXPECT_EQ(cache.ledger().peak, peak);
    EXPECT_EQ(cache.add_sequence(), 0) << "ids are used again";
  }
}

TEST(KvCache, AForkSharesPagesUntilOneOfThemAppends) {
  const CacheShape shape{.group = 3, .head_dim = 8, .page_tokens = 8};
  ThreadPool pool(1);
  const Projections source(shape, 40, 10);
  Projections other = source;
  for (std::size_t i = other.k.size() / 2; i < other.k.size(); ++i) other.k[i] = -other.k[i];
  CacheDriver driver(shape, pool);
  const SequenceId trunk = driver.add(source);
  driver.step({{trunk, 20}});  // two full pages and half a tail
  const int64_t payload = driver.cache.ledger().payload;
  const SequenceId branch = driver.cache.fork_sequence(trunk);
  driver.follow(branch, other);
  EXPECT_EQ(driver.cache.tokens(branch), 20);
  driver.step({{branch, 1}});  // copies the tails of both heads, four tokens each, and adds one
  EXPECT_EQ(driver.cache.ledger().payload, payload + shape.kv_heads * 5 * token_bytes(shape));
  expect_honest(driver.cache);
  driver.step({{trunk, 20}, {branch, 19}});

  CacheDriver apart(shape, pool);
  const SequenceId a = apart.add(source), b = apart.add(other);
  for (const SequenceId id : {a, b}) apart.step({{id, 20}});
  apart.step({{b, 1}});
  apart.step({{a, 20}, {b, 19}});
  const auto tail = [&](const std::vector<float>& v) {
    return std::vector<float>(v.begin() + 20 * 6 * 8, v.end());
  };
  EXPECT_EQ(tail(driver.output(trunk)), tail(apart.output(a)));
  EXPECT_EQ(tail(driver.output(branch)), tail(apart.output(b)));
}

TEST(KvCache, PagesReadBackInTheStoredBasis) {
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain, KeyBasis::kPageRelative}) {
    const CacheShape shape{.layers = 2, .head_dim = 20, .page_tokens = 8, .basis = basis};
    ThreadPool pool(1);
    const Projections source(shape, 21, 11);
    CacheDriver driver(shape, pool);
    const SequenceId id = driver.add(source);
    driver.feed(id, 5);
    EXPECT_EQ(driver.cache.sealed_pages(id), 2);
    const Rope rope(20, 20, 10000.0, {});
    for (int head = 0; head < 2; ++head) {
      for (int64_t page = 0; page < 3; ++page) {
        const int64_t tokens = page < 2 ? 8 : 5;
        std::vector<float> k(static_cast<std::size_t>(tokens * 20)), v = k;
        driver.cache.read_page(id, 1, head, page, Side::kKey, MatView<float>(k.data(), tokens, 20));
        driver.cache.read_page(id, 1, head, page, Side::kValue, MatView<float>(v.data(), tokens, 20));
        for (int64_t j = 0; j < tokens; ++j) {
          const auto at = static_cast<std::ptrdiff_t>(((page * 8 + j) * 2 + head) * 20);
          std::vector<float> key(source.k.begin() + at, source.k.begin() + at + 20);
          if (basis == KeyBasis::kRotated) rope.rotate(key.data(), page * 8 + j);
          if (basis == KeyBasis::kPageRelative) rope.rotate(key.data(), j);
          for (std::size_t i = 0; i < 20; ++i) {
            EXPECT_EQ(k[static_cast<std::size_t>(j) * 20 + i], key[i]);
            EXPECT_EQ(v[static_cast<std::size_t>(j) * 20 + i], source.v[static_cast<std::size_t>(at) + i]);
          }
        }
      }
    }
  }
}

TEST(KvCache, RefusesPageSizesByName) {
  ThreadPool pool(1);
  for (const int tokens : {0, -1, kMaxPageTokens + 1}) {
    const CacheShape shape{.page_tokens = tokens};
    try {
      KvCache cache(shape.options(), pool);
      FAIL() << tokens;
    } catch (const InputError& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("page size: expected 1 to 1024 tokens, found"));
    }
  }
}

TEST(KvCacheDeath, StepsOutOfOrderAreBugs) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const CacheShape shape{.layers = 2};
  ThreadPool pool(1);
  KvCache cache(shape.options(), pool);
  const SequenceId id = cache.add_sequence();
  const std::vector<float> rows(16, 1.0f);
  const MatView<const float> row(rows.data(), 1, 16);
  EXPECT_EXIT(cache.append(0, {{{id, 0, 1, 5}}}, row, row), testing::ExitedWithCode(2), "starts where its");
  cache.append(0, {{{id, 0, 1, 0}}}, row, row);
  EXPECT_EXIT(cache.append(0, {{{id, 0, 1, 0}}}, row, row), testing::ExitedWithCode(2), "once a step");
  EXPECT_EXIT(cache.end_step({{{id, 0, 1, 0}}}), testing::ExitedWithCode(2), "every layer");
}

}  // namespace
}  // namespace kva
