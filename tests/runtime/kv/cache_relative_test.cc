// Positions relative to the cache, against attention in double over the tokens that are left, and against
// caches that never held any others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/error_of.h"
#include "tests/runtime/kv/cache_fixture.h"
#include "tests/runtime/kv/rewriting.h"

namespace kva {
namespace {

using testing::HasSubstr;

CacheShape relative(CacheShape shape) {
  shape.basis = KeyBasis::kPlain;
  shape.positions = PositionMode::kCacheRelative;
  return shape;
}

// Whether the query at t still finds key s of a KV head.
using NaiveHolds = std::function<bool(int64_t kv, int64_t s, int64_t t)>;

struct NaiveStream {
  std::vector<double> out;                // as CacheDriver::output()
  std::vector<std::vector<double>> mass;  // [kv_heads][tokens]
};

// Each query is at the end of what is left, and its keys are at 0, 1, ...
NaiveStream naive_stream(const CacheShape& shape, const Projections& p, const NaiveHolds& holds) {
  const int64_t dim = shape.head_dim, heads = shape.heads(), kv_cols = shape.kv_heads * dim;
  NaiveStream result{std::vector<double>(p.q.size()), {}};
  result.mass.assign(static_cast<std::size_t>(shape.kv_heads),
                     std::vector<double>(static_cast<std::size_t>(p.tokens)));
  for (int64_t t = 0; t < p.tokens; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t kv = h / shape.group;
      std::vector<int64_t> left;
      for (int64_t s = 0; s <= t; ++s)
        if (holds(kv, s, t)) left.push_back(s);
      const auto query =
          naive_rotated(shape, p.q.data() + (t * heads + h) * dim, static_cast<int64_t>(left.size()) - 1);
      std::vector<double> weights;
      double sum = 0.0;
      for (std::size_t i = 0; i < left.size(); ++i) {
        const auto key =
            naive_rotated(shape, p.k.data() + left[i] * kv_cols + kv * dim, static_cast<int64_t>(i));
        double dot = 0.0;
        for (std::size_t c = 0; c < key.size(); ++c) dot += query[c] * key[c];
        weights.push_back(std::exp(dot / std::sqrt(static_cast<double>(dim))));
        sum += weights.back();
      }
      double* out = result.out.data() + (t * heads + h) * dim;
      for (std::size_t i = 0; i < left.size(); ++i) {
        result.mass[static_cast<std::size_t>(kv)][static_cast<std::size_t>(left[i])] +=
            weights[i] / sum / shape.group;
        const float* values = p.v.data() + left[i] * kv_cols + kv * dim;
        for (int64_t c = 0; c < dim; ++c) out[c] += weights[i] / sum * double{values[c]};
      }
    }
  }
  return result;
}

void expect_near(const std::vector<float>& got, const std::vector<double>& expected, int64_t first) {
  for (std::size_t i = static_cast<std::size_t>(first); i < got.size(); ++i)
    ASSERT_NEAR(got[i], expected[i], 1e-5) << "value " << i;
}

TEST(CacheRelative, IsTheOriginalBitForBitWhileNothingIsDropped) {
  ThreadPool pool(2);
  for (const DType type : {DType::kF32, DType::kF16}) {
    const CacheShape original{
        .group = 3, .head_dim = 20, .page_tokens = 8, .basis = KeyBasis::kPlain, .type = type};
    const Projections source(original, 300, 1);
    for (const int64_t chunk : {1, 17, 90}) {
      std::vector<std::vector<float>> outputs;
      for (const CacheShape& shape : {original, relative(original)}) {
        CacheDriver driver(shape, pool);
        const SequenceId id = driver.add(source);
        driver.step({{id, 150}});
        driver.cache.apply(cut_elsewhere(driver.cache, {id, 0, 1}));
        driver.feed(id, chunk);
        outputs.push_back(driver.output(id));
      }
      EXPECT_EQ(outputs[0], outputs[1]);
    }
  }
}

TEST(CacheRelative, CountsWhatEachHeadStillHolds) {
  ThreadPool pool(2);
  const CacheShape shape = relative({.group = 3, .head_dim = 20, .page_tokens = 8});
  const Projections source(shape, 120, 2);
  // From the query at 45 on head 0 has lost much of its first pages, from 82 on more; head 1 its second page.
  const auto holds = [](int64_t kv, int64_t s, int64_t t) {
    if (kv == 1) return t < 45 || s < 8 || s >= 16;
    if (t >= 45 && s < 8 && s % 3 != 0) return false;
    if (t >= 45 && (s == 9 || s == 15 || (s >= 16 && s < 24))) return false;
    return t < 82 || (s != 12 && (s < 24 || s >= 32) && s != 64);
  };
  const NaiveStream expected = naive_stream(shape, source, holds);
  for (const int64_t chunk : {1, 5, 37}) {
    CacheDriver driver(shape, pool);
    KvCache& cache = driver.cache;
    for (int head = 0; head < 2; ++head) cache.observe(0, head, {.attention_mass = true});
    const SequenceId id = driver.add(source);
    driver.step({{id, 45}});
    Plan first;
    add_rewrite(first, cache, {id, 0, 0}, 0, 1, {0, 3, 6});
    add_hiding(first, cache, {id, 0, 0}, 1, {9, 15});
    add_hiding(first, cache, {id, 0, 0}, 2, range(16, 24));
    add_rewrite(first, cache, {id, 0, 1}, 1, 1, {});
    cache.apply(first);
    while (cache.tokens(id) < 82) driver.step({{id, std::min<int64_t>(chunk, 82 - cache.tokens(id))}});
    Plan second;
    add_rewrite(second, cache, {id, 0, 0}, 1, 3, {8, 10, 11, 13, 14});
    add_hiding(second, cache, {id, 0, 0}, 8, {64});
    cache.apply(second);
    driver.feed(id, chunk);
    expect_near(driver.output(id), expected.out, 0);
    for (int head = 0; head < 2; ++head) {
      const auto mass = cache.attention_mass(id, 0, head);
      for (std::size_t t = 0; t < mass.size(); ++t)
        ASSERT_NEAR(mass[t], expected.mass[static_cast<std::size_t>(head)][t], 1e-4) << head << " " << t;
    }
  }
}

// A sink and a window that slides: what is computed behind it is what a cache computes that was only ever
// given the tokens that are left, at positions 0, 1, ...
TEST(CacheRelative, EqualsAFreshCacheOfTheTokensThatAreLeft) {
  ThreadPool pool(2);
  const CacheShape shape = relative({.kv_heads = 1, .group = 3, .head_dim = 20, .page_tokens = 16});
  constexpr int64_t kBefore = 900;
  const Projections source(shape, 1000, 3);
  std::vector<int32_t> left = range(0, 4);
  for (int32_t t = 203; t < 640; t += 3) left.push_back(t);
  const auto kept = static_cast<int32_t>(left.size());
  for (int32_t t = 640; t < 1000; ++t) left.push_back(t);
  Projections only(shape, static_cast<int64_t>(left.size()), 4);
  const int64_t q_cols = 60, kv_cols = 20;
  for (std::size_t i = 0; i < left.size(); ++i) {
    const auto to = static_cast<int64_t>(i);
    std::copy_n(source.q.begin() + left[i] * q_cols, q_cols, only.q.begin() + to * q_cols);
    std::copy_n(source.k.begin() + left[i] * kv_cols, kv_cols, only.k.begin() + to * kv_cols);
    std::copy_n(source.v.begin() + left[i] * kv_cols, kv_cols, only.v.begin() + to * kv_cols);
  }
  const auto after = [&](const std::vector<float>& output) {
    return std::vector<float>(output.end() - (1000 - kBefore) * q_cols, output.end());
  };
  for (const int64_t chunk : {1, 100}) {
    CacheDriver driver(shape, pool);
    const SequenceId id = driver.add(source);
    driver.step({{id, kBefore}});
    Plan plan;  // pages of 16 tokens again, but for the last
    for (int32_t first = 0; first < kept; first += 16)
      add_rewrite(plan, driver.cache, {id}, first == 0 ? 0 : 40, first == 0 ? 40 : 0,
                  {left.begin() + first, left.begin() + std::min(first + 16, kept)});
    driver.cache.apply(plan);
    driver.feed(id, chunk);
    for (const KeyBasis basis : {KeyBasis::kPlain, KeyBasis::kRotated}) {
      CacheShape fresh = shape;
      fresh.basis = basis;
      fresh.positions = PositionMode::kOriginal;
      CacheDriver reference(fresh, pool);
      const SequenceId of_left = reference.add(only);
      reference.step({{of_left, only.tokens - (1000 - kBefore)}});
      reference.feed(of_left, chunk);
      const std::vector<float> expected = after(reference.output(of_left));
      expect_near(after(driver.output(id)), {expected.begin(), expected.end()}, 0);
    }
  }
}

TEST(CacheRelative, BitsDependOnNeitherThreadsNorCompany) {
  const CacheShape shape = relative({.kv_heads = 2, .group = 3, .head_dim = 64, .type = DType::kF16});
  const Projections a(shape, 700, 5), b(shape, 333, 6);
  ThreadPool one(1), three(3);
  const auto drop = [](KvCache& cache, SequenceId id) {
    Plan plan;
    add_rewrite(plan, cache, {id, 0, 1}, 0, 20, {0, 1, 2, 3, 100, 200, 300});
    cache.apply(plan);
  };
  const auto alone = [&](ThreadPool& pool) {
    CacheDriver driver(shape, pool);
    const SequenceId id = driver.add(a);
    driver.step({{id, 600}});
    drop(driver.cache, id);
    driver.step({{id, 90}});
    driver.feed(id, 1);
    return driver.output(id);
  };
  const auto expected = alone(one);
  EXPECT_EQ(expected, alone(three));
  CacheDriver together(shape, three);
  const SequenceId idb = together.add(b), ida = together.add(a);
  together.step({{idb, 313}, {ida, 600}});
  drop(together.cache, ida);
  together.step({{ida, 90}, {idb, 5}});
  for (int i = 0; i < 10; ++i) together.step({{idb, 1}, {ida, 1}});
  EXPECT_EQ(together.output(ida), expected);
}

TEST(CacheRelative, NeedsPlainKeysAndRope) {
  ThreadPool pool(1);
  KvCacheOptions options = relative({}).options();
  options.key_basis = KeyBasis::kRotated;
  EXPECT_THAT(error_of([&] { KvCache(options, pool); }),
              HasSubstr("expected keys(plain), found keys(rotated)"));
  CacheShape learned;
  learned.rope = false;
  options = relative(learned).options();
  EXPECT_THAT(error_of([&] { KvCache(options, pool); }), HasSubstr("expected a model with rotary positions"));
}

}  // namespace
}  // namespace kva
