// Rewrites that make several pages of several, against attention that never pages anything.
#include "runtime/kv/plan.h"

#include <gtest/gtest.h>

#include <limits>
#include <memory>

#include "runtime/error.h"
#include "tests/runtime/kv/cache_fixture.h"
#include "tests/runtime/kv/rewriting.h"

namespace kva {
namespace {

using Pages = std::vector<std::vector<int32_t>>;

constexpr CacheShape kShape{.group = 2, .head_dim = 20, .page_tokens = 8};

std::vector<int32_t> range(int32_t first, int32_t end) {
  std::vector<int32_t> result;
  for (int32_t i = first; i < end; ++i) result.push_back(i);
  return result;
}

void expect_honest(const KvCache& cache) {
  const ByteLedger ledger = cache.ledger();
  EXPECT_EQ(ledger.held() + ledger.workspace, cache.backend().allocated_bytes());
  EXPECT_GE(ledger.slack, 0);
}

// Applies the plan and finds its prediction true.
void apply(KvCache& cache, const Plan& plan) {
  const int64_t predicted = cache.predicted_bytes(plan);
  const ByteLedger before = cache.ledger();
  cache.apply(plan);
  const ByteLedger after = cache.ledger();
  EXPECT_EQ(after.payload + after.scales - before.payload - before.scales, predicted);
  expect_honest(cache);
}

void expect_attention(const CacheDriver& driver, SequenceId id, const std::vector<double>& expected) {
  const std::vector<float>& got = driver.output(id);
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 1e-5) << "value " << i;
}

TEST(PlanRewrite, PagesBecomeMorePagesInPlace) {
  ThreadPool pool(2);
  const Projections source(kShape, 60, 1);
  for (const int64_t chunk : {1, 40}) {
    CacheDriver driver(kShape, pool);
    KvCache& cache = driver.cache;
    const SequenceId id = driver.add(source);
    driver.step({{id, 28}});
    Plan plan;  // of two tables in turn
    add_rewrite(plan, cache, {id, 0, 0}, 0, 2, range(0, 3));
    add_rewrite(plan, cache, {id, 0, 1}, 1, 1, range(8, 9));
    add_rewrite(plan, cache, {id, 0, 0}, 2, 0, range(3, 4));
    add_rewrite(plan, cache, {id, 0, 1}, 2, 0, range(9, 16));
    add_rewrite(plan, cache, {id, 0, 0}, 2, 0, range(4, 8));
    add_rewrite(plan, cache, {id, 0, 0}, 2, 0, range(8, 16));
    EXPECT_EQ(cache.predicted_bytes(plan), 0);
    apply(cache, plan);
    EXPECT_EQ(positions_by_page(cache, {id, 0, 0}),
              (Pages{range(0, 3), range(3, 4), range(4, 8), range(8, 16), range(16, 24), range(24, 28)}));
    EXPECT_EQ(positions_by_page(cache, {id, 0, 1}),
              (Pages{range(0, 8), range(8, 9), range(9, 16), range(16, 24), range(24, 28)}));
    EXPECT_TRUE(cache.page({id, 0, 0, 5, Side::kKey}).open);
    driver.feed(id, chunk);
    expect_attention(driver, id, naive_attention(kShape, source));
  }
}

TEST(PlanRewrite, InsertsBeforeTheFirstPageAndBehindTheLastFullOne) {
  ThreadPool pool(1);
  const Projections source(kShape, 60, 2);
  for (const int64_t tokens : {24, 25}) {
    CacheDriver driver(kShape, pool);
    KvCache& cache = driver.cache;
    const SequenceId id = driver.add(source);
    driver.step({{id, tokens}});
    Plan plan;
    add_rewrite(plan, cache, {id, 0, 0}, 0, 0, {0});
    add_rewrite(plan, cache, {id, 0, 0}, 0, 1, range(1, 8));
    add_rewrite(plan, cache, {id, 0, 0}, 2, 1, range(16, 20));
    add_rewrite(plan, cache, {id, 0, 0}, 3, 0, range(20, 22));
    add_rewrite(plan, cache, {id, 0, 0}, 3, 0, range(22, 24));
    apply(cache, plan);
    Pages expected{{0}, range(1, 8), range(8, 16), range(16, 20), range(20, 22), range(22, 24)};
    if (tokens > 24) expected.push_back({24});
    EXPECT_EQ(positions_by_page(cache, {id, 0, 0}), expected);
    driver.feed(id, 5);
    expect_attention(driver, id, naive_attention(kShape, source));
  }
}

// Nine pages keep every third token on three; two more plans then drop a page and split what is left.
TEST(PlanRewrite, DropsJoinsAndSplitsInSeveralPlans) {
  ThreadPool pool(2);
  const CacheShape shape{.kv_heads = 1, .group = 3, .head_dim = 20, .page_tokens = 8};
  const Projections source(shape, 120, 3);
  std::vector<int32_t> kept;
  for (int32_t t = 0; t < 72; t += 3) kept.push_back(t);
  const auto part = [&](int first, int end) {
    return std::vector<int32_t>(kept.begin() + first, kept.begin() + end);
  };
  CacheDriver driver(shape, pool);
  KvCache& cache = driver.cache;
  const SequenceId id = driver.add(source);
  driver.step({{id, 75}});
  Plan joins;
  add_rewrite(joins, cache, {id}, 0, 9, part(0, 8));
  add_rewrite(joins, cache, {id}, 9, 0, part(8, 16));
  add_rewrite(joins, cache, {id}, 9, 0, part(16, 24));
  apply(cache, joins);
  Plan splits;
  add_rewrite(splits, cache, {id}, 0, 1, part(0, 4));
  add_rewrite(splits, cache, {id}, 1, 0, part(4, 8));
  add_rewrite(splits, cache, {id}, 1, 1, {});
  apply(cache, splits);
  EXPECT_EQ(positions_by_page(cache, {id}), (Pages{part(0, 4), part(4, 8), part(16, 24), range(72, 75)}));
  driver.feed(id, 9);
  const auto held = [&](int64_t s) {
    const auto at = std::find(kept.begin(), kept.end(), static_cast<int32_t>(s)) - kept.begin();
    return s >= 72 || at < 8 || (at >= 16 && at < 24);
  };
  const NaiveBias bias = [&](int64_t s, int64_t t) {
    return t < 75 || held(s) ? 0.0 : -std::numeric_limits<double>::infinity();
  };
  expect_attention(driver, id, naive_attention(shape, source, bias));
}

// A dropped token may stay where it is, hidden; whole pages and runs of them too.
TEST(PlanRewrite, HidesTokensOfSidesThatStay) {
  ThreadPool pool(2);
  const CacheShape shape{.kv_heads = 1, .group = 3, .head_dim = 20, .page_tokens = 16};
  const Projections source(shape, 700, 4);
  constexpr float kHidden = -std::numeric_limits<float>::infinity();
  const auto hidden = [](int64_t s) { return s < 560 && s % 16 != 5; };
  for (const bool all : {false, true}) {
    for (const int64_t chunk : {1, 60}) {
      CacheDriver driver(shape, pool);
      KvCache& cache = driver.cache;
      const SequenceId id = driver.add(source);
      driver.step({{id, 565}});
      Plan plan;
      for (int32_t page = 0; page < 35; ++page) {
        std::vector<float> biases(16, kHidden);
        if (!all) biases[5] = 0.0f;
        plan.rewrites.push_back({.sequence = id,
                                 .first_page = page,
                                 .pages = 1,
                                 .alias_k = cache.page({id, 0, 0, page, Side::kKey}).side,
                                 .alias_v = cache.page({id, 0, 0, page, Side::kValue}).side,
                                 .positions = range(page * 16, page * 16 + 16),
                                 .biases = biases});
      }
      EXPECT_EQ(cache.predicted_bytes(plan), 0);
      apply(cache, plan);
      driver.feed(id, chunk);
      const NaiveBias bias = [&](int64_t s, int64_t t) {
        return t < 565 || !(all ? s < 560 : hidden(s)) ? 0.0 : -std::numeric_limits<double>::infinity();
      };
      expect_attention(driver, id, naive_attention(shape, source, bias));
    }
  }
}

// ---- What places take ----------------------------------------------------------------------------------

struct PlacesCase {
  std::vector<int32_t> positions;
  std::vector<float> biases;
  int64_t bytes;  // a token
};

TEST(Places, TakeNoMoreThanTheirNumbersNeed) {
  const auto backend = make_cpu_backend();
  PageStore store(*backend, *backend, 8, 8);
  const float hidden = -std::numeric_limits<float>::infinity();
  for (const PlacesCase& tested : {PlacesCase{{7}, {}, 2},
                                   {{100000, 100001, 165535}, {}, 2},
                                   {{100000, 100001, 165535}, {0.0f, -0.0f, 0.0f}, 2},
                                   {{100000, 100001, 165536}, {}, 4},
                                   {{0, 3, 6, 9, 65535}, {0.0f, 0.5f, 0.0f, hidden, hidden}, 6},
                                   {{0, 3, 2147483646}, {hidden, 1.0f, 0.0f}, 8}}) {
    const auto count = static_cast<int64_t>(tested.positions.size());
    const std::vector<std::byte> packed = packed_places(tested.positions, tested.biases);
    EXPECT_EQ(static_cast<int64_t>(packed.size()), count * tested.bytes);
    ByteLedger before, after;
    store.add_to(before);
    const PageRef ref{.where = store.add_places(packed),
                      .tokens = static_cast<int32_t>(count),
                      .start = tested.positions.front()};
    store.add_to(after);
    EXPECT_EQ(after.held(), backend->allocated_bytes());
    const PagePlaces places(store, ref);
    EXPECT_EQ(places.last_position(), tested.positions.back());
    for (std::size_t t = 0; t < tested.positions.size(); ++t) {
      EXPECT_EQ(places.position(static_cast<int64_t>(t)), tested.positions[t]);
      EXPECT_EQ(places.bias(static_cast<int64_t>(t)), tested.biases.empty() ? 0.0f : tested.biases[t]);
    }
    EXPECT_EQ(places.hidden_tokens(), std::count(tested.biases.begin(), tested.biases.end(), hidden));
    store.release(ref.where);
  }
}

TEST(Places, AreCountedAsTables) {
  ThreadPool pool(1);
  const CacheShape shape{.kv_heads = 1, .head_dim = 20, .page_tokens = 64};
  const Projections source(shape, 64 * 20, 7);
  std::vector<int64_t> tables;
  for (const float bias : {0.0f, 0.5f}) {
    CacheDriver driver(shape, pool);
    const SequenceId id = driver.add(source);
    driver.feed(id, 64 * 20);
    Plan plan;
    for (int32_t page = 0; page < 20; ++page) {
      std::vector<int32_t> kept;
      for (int32_t t = 0; t < 64; t += 2) kept.push_back(page * 64 + t);
      add_rewrite(plan, driver.cache, {id}, page, 1, kept, std::vector<float>(32, bias));
    }
    const int64_t before = driver.cache.ledger().tables;
    apply(driver.cache, plan);
    tables.push_back(driver.cache.ledger().tables - before);
  }
  EXPECT_EQ(tables[1] - tables[0], 20 * 32 * 4) << "biases alone";
  EXPECT_LE(tables[0], 20 * 32 * 2 + 66 * 40) << "two bytes a token, and the entries of 60 sides";
}

// One page of tokens more than 65,535 apart; plain keys are turned by them.
TEST(Places, ReachAsFarAsPositionsDo) {
  ThreadPool pool(1);
  constexpr int64_t kTokens = 70000;
  const std::vector<int32_t> kept{0, 9, 65536, 69990};
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain}) {
    const CacheShape shape{.kv_heads = 1, .head_dim = 4, .page_tokens = 1000, .basis = basis};
    const Projections source(shape, kTokens + 1, 8);
    KvCache cache(shape.options(), pool);
    const SequenceId id = cache.add_sequence();
    const auto rows = [](const std::vector<float>& of, int64_t first, int64_t count) {
      return MatView<const float>(of.data() + first * 4, count, 4);
    };
    const Batch all{{{id, 0, kTokens, 0}}}, last{{{id, 0, 1, kTokens}}};
    cache.append(0, all, rows(source.k, 0, kTokens), rows(source.v, 0, kTokens));
    cache.end_step(all);
    Plan plan;
    add_rewrite(plan, cache, {id}, 0, 70, kept);
    cache.apply(plan);
    cache.append(0, last, rows(source.k, kTokens, 1), rows(source.v, kTokens, 1));
    std::vector<float> out(4);
    cache.attend(0, last, rows(source.q, kTokens, 1), MatView<float>(out.data(), 1, 4));
    cache.end_step(last);
    const auto query = naive_rotated(shape, source.q.data() + kTokens * 4, kTokens);
    std::vector<double> expected(4);
    double sum = 0.0;
    std::vector<int32_t> left = kept;
    left.push_back(kTokens);
    for (const int32_t s : left) {
      const auto key = naive_rotated(shape, source.k.data() + int64_t{s} * 4, s);
      double dot = 0.0;
      for (std::size_t i = 0; i < 4; ++i) dot += query[i] * key[i];
      sum += std::exp(dot / 2.0);
      for (std::size_t i = 0; i < 4; ++i)
        expected[i] += std::exp(dot / 2.0) * double{source.v[static_cast<std::size_t>(s) * 4 + i]};
    }
    for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(out[i], expected[i] / sum, 1e-5);
  }
}

// ---- Memory ----------------------------------------------------------------------------------------------

// Gives out no more than it is told to.
class SmallBackend : public Backend {
 public:
  SmallBackend() : Backend(64), memory_(make_cpu_backend()) {}
  std::string name() const override { return "small"; }
  void copy(void* target, const void* source, int64_t bytes) override {
    memory_->copy(target, source, bytes);
  }
  int64_t most_bytes = std::numeric_limits<int64_t>::max();

 protected:
  void* raw_allocate(int64_t bytes, MemoryUse use) override {
    return allocated_bytes() + bytes > most_bytes ? nullptr : memory_->allocate(bytes, "", use);
  }
  void raw_free(void* memory, int64_t bytes) noexcept override { memory_->free(memory, bytes); }

 private:
  std::unique_ptr<Backend> memory_;
};

TEST(PlanRewrite, ChangesNothingWhereMemoryEnds) {
  ThreadPool pool(1);
  const Projections source(kShape, 300, 5);
  const auto backend = std::make_shared<SmallBackend>();
  KvCacheOptions options = kShape.options();
  options.backend = backend;
  CacheDriver driver(options, kShape, pool);
  KvCache& cache = driver.cache;
  const SequenceId id = driver.add(source);
  driver.step({{id, 200}});
  Plan plan;
  for (int head = 0; head < 2; ++head) {
    for (int32_t t = 0; t < 200; ++t)
      add_rewrite(plan, cache, {id, 0, head}, t == 0 ? 0 : 25, t == 0 ? 25 : 0, {t});
  }
  const auto state = [&] {
    const ByteLedger ledger = cache.ledger();
    expect_honest(cache);
    return std::pair{ledger.payload, positions_by_page(cache, {id, 0, 1})};
  };
  const auto before = state();
  int failures = 0;
  for (int64_t more = 0;; more += 4096) {
    backend->most_bytes = backend->allocated_bytes() + more;
    try {
      cache.apply(plan);
      break;
    } catch (const InputError&) {
      ++failures;
      ASSERT_EQ(state(), before);
    }
  }
  EXPECT_GE(failures, 3);
  EXPECT_EQ(cache.pages(id, 0, 1), 200);
  backend->most_bytes = std::numeric_limits<int64_t>::max();
  driver.feed(id, 20);
  expect_attention(driver, id, naive_attention(kShape, source));
}

TEST(PlanRewriteDeath, OutOfOrderOrEmptyInsertsAreBugs) {
  ThreadPool pool(1);
  const Projections source(kShape, 30, 6);
  CacheDriver driver(kShape, pool);
  KvCache& cache = driver.cache;
  const SequenceId id = driver.add(source);
  driver.step({{id, 30}});
  Plan into, empty, behind;
  add_rewrite(into, cache, {id}, 0, 2, range(0, 8));
  add_rewrite(into, cache, {id}, 1, 0, range(8, 16));
  EXPECT_DEATH(cache.apply(into), "full pages only, in order");
  add_rewrite(empty, cache, {id}, 1, 0, {});
  EXPECT_DEATH(cache.apply(empty), "inserted page holds tokens");
  add_rewrite(behind, cache, {id}, 4, 0, range(24, 30));
  EXPECT_DEATH(cache.apply(behind), "full pages only");
}

}  // namespace
}  // namespace kva
