#include "reports/layer_error.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "tests/compressors/compressed_cache.h"

namespace kva {
namespace {

constexpr int64_t kTokens = 40;  // two full pages and half a page

CacheShape shape_of(DType type, KeyBasis basis = KeyBasis::kRotated) {
  return {
      .layers = 2, .kv_heads = 2, .group = 2, .head_dim = 8, .page_tokens = 16, .basis = basis, .type = type};
}

// A cache under a recipe, fed the same numbers as every other one here.
struct Fed {
  Fed(const std::string& recipe, const CacheShape& shape, ThreadPool& pool)
      : source(shape, kTokens, 7), cache(recipe, pool, shape), id(cache.driver.add(source)) {
    cache.feed(id, kTokens, 8);
  }
  Projections source;
  CompressedCache cache;
  SequenceId id;
};

std::vector<LayerError> errors_of(const Fed& candidate, int threads = 2) {
  ThreadPool pool(threads);
  const Fed base("dense(f32)", shape_of(DType::kF32), pool);
  std::vector<LayerError> layers;
  add_layer_errors(base.cache.driver.cache, base.id, candidate.cache.driver.cache, candidate.id, pool,
                   layers);
  return layers;
}

float to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
}

TEST(LayerError, TheBaseItselfHasNone) {
  ThreadPool pool(2);
  const Fed same("dense(f32)", shape_of(DType::kF32), pool);
  for (const LayerError& layer : errors_of(same)) {
    EXPECT_EQ(layer.k(), 0.0);
    EXPECT_EQ(layer.v(), 0.0);
    EXPECT_EQ(layer.missing_share(), 0.0);
    EXPECT_EQ(layer.tokens, 2 * kTokens);
  }
}

// What rounding the values by hand gives.
TEST(LayerError, RoundedValuesAreOffByTheirRounding) {
  ThreadPool pool(2);
  const Fed rounded("dense(bf16)", shape_of(DType::kF32), pool);
  double difference = 0, norm = 0;
  for (const float value : rounded.source.v) {
    difference += std::pow(double{to_bf16(value)} - double{value}, 2);
    norm += double{value} * double{value};
  }
  for (const LayerError& layer : errors_of(rounded)) {
    EXPECT_NEAR(layer.v(), std::sqrt(difference / norm), 1e-12);
    EXPECT_GT(layer.k(), 1e-4);
    EXPECT_LT(layer.k(), 4e-3);  // half a step of 8 bits
  }
}

// Unrotated, keys would differ by more than their own length.
TEST(LayerError, KeysAreComparedInOneBasis) {
  ThreadPool pool(2);
  for (const char* recipe : {"keys(plain); dense(f32)", "keys(page-relative); dense(f32)"}) {
    const Fed other(recipe, shape_of(DType::kF32), pool);
    for (const LayerError& layer : errors_of(other)) {
      EXPECT_LT(layer.k(), 1e-5) << recipe;
      EXPECT_EQ(layer.v(), 0.0) << recipe;
    }
  }
}

TEST(LayerError, DroppedTokensAreMissingAndTheRestIsExact) {
  ThreadPool pool(2);
  for (const char* recipe :
       {"evict(keep=0.5,sinks=0,window=0)", "keys(plain); evict(keep=0.5,sinks=0,window=0)"}) {
    const Fed evicted(recipe, shape_of(DType::kF32), pool);
    for (const LayerError& layer : errors_of(evicted)) {
      EXPECT_EQ(layer.missing, 2 * 16);  // of each of two heads 8 in each of two pages
      EXPECT_DOUBLE_EQ(layer.missing_share(), 16.0 / 40.0);
      EXPECT_LT(layer.k(), 1e-5) << recipe;
      EXPECT_EQ(layer.v(), 0.0) << recipe;
    }
  }
}

// Masked tokens whose pages are not packed yet lie in memory, but nothing reads them.
TEST(LayerError, HiddenTokensAreMissing) {
  ThreadPool pool(2);
  const Fed window("SlidingWindow(window=30,important=0)", shape_of(DType::kF32), pool);
  const KvCache& cache = window.cache.driver.cache;
  int64_t stored = 0;
  for (int64_t page = 0; page < cache.pages(window.id, 0, 0); ++page)
    stored += cache.page({window.id, 0, 0, page, Side::kKey}).tokens;
  const auto read = static_cast<int64_t>(window.cache.positions(window.id, 0, 0).size());
  ASSERT_LT(read, stored) << "some tokens are hidden here";
  for (const LayerError& layer : errors_of(window)) {
    EXPECT_EQ(layer.missing, 2 * (kTokens - read));
    EXPECT_EQ(layer.k(), 0.0);
    EXPECT_EQ(layer.v(), 0.0);
  }
}

// The latest tokens stand as they stood; the first ones moved up to them.
TEST(LayerError, CacheRelativeKeysAreWhereTheLatestQuerySeesThem) {
  ThreadPool pool(2);
  const CacheShape shape = shape_of(DType::kF32);
  const Fed sink("keys(plain,cache-relative); AttentionSink(sink=3,window=12)", shape, pool);
  const auto read = sink.cache.positions(sink.id, 0, 0);
  ASSERT_LT(static_cast<int64_t>(read.size()), kTokens);
  const auto lost = kTokens - static_cast<int64_t>(read.size());
  double difference = 0, norm = 0;
  for (int64_t head = 0; head < shape.kv_heads; ++head)
    for (std::size_t index = 0; index < read.size(); ++index) {
      const float* key = sink.source.k.data() + (read[index] * shape.kv_heads + head) * shape.head_dim;
      const auto was = naive_rotated(shape, key, read[index]);
      const auto is = naive_rotated(shape, key, static_cast<int64_t>(index) + lost);
      for (std::size_t i = 0; i < was.size(); ++i) {
        difference += (is[i] - was[i]) * (is[i] - was[i]);
        norm += was[i] * was[i];
      }
    }
  ASSERT_GT(difference, 0.1 * norm);
  for (const LayerError& layer : errors_of(sink)) {
    EXPECT_NEAR(layer.k(), std::sqrt(difference / norm), 1e-5);
    EXPECT_EQ(layer.v(), 0.0);
    EXPECT_EQ(layer.missing, 2 * lost);
  }
  const Fed whole("keys(plain,cache-relative); dense(f32)", shape, pool);
  for (const LayerError& layer : errors_of(whole)) EXPECT_LT(layer.k(), 1e-5);
}

TEST(LayerError, MergedValuesAreNotThoseOfTheirPosition) {
  ThreadPool pool(2);
  const Fed merged("layers(1): merge(keep=0.5,sinks=0,window=0)", shape_of(DType::kF32), pool);
  const auto layers = errors_of(merged);
  EXPECT_EQ(layers[0].missing, 0);
  EXPECT_EQ(layers[1].missing, 2 * 16);
  EXPECT_EQ(layers[1].k(), 0.0);
  EXPECT_GT(layers[1].v(), 0.05);
}

TEST(LayerError, WindowsAddUpAndThreadsChangeNothing) {
  ThreadPool pool(2);
  const Fed rounded("dense(bf16)", shape_of(DType::kF32), pool);
  const Fed base("dense(f32)", shape_of(DType::kF32), pool);
  std::vector<LayerError> twice;
  for (int window = 0; window < 2; ++window)
    add_layer_errors(base.cache.driver.cache, base.id, rounded.cache.driver.cache, rounded.id, pool, twice);
  const auto one = errors_of(rounded, 1), three = errors_of(rounded, 3);
  for (std::size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].k_difference, three[i].k_difference);
    EXPECT_EQ(twice[i].k_difference, 2 * one[i].k_difference);
    EXPECT_DOUBLE_EQ(twice[i].k(), one[i].k());
    EXPECT_EQ(twice[i].tokens, 2 * one[i].tokens);
  }
}

TEST(LayerError, NothingToCompareIsNoNumber) {
  const LayerError none;
  EXPECT_TRUE(std::isnan(none.k()) && std::isnan(none.v()) && std::isnan(none.missing_share()));
}

}  // namespace
}  // namespace kva
