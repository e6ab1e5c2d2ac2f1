// Recipes whose pages a device codes where they lie: what the CPU stores, without their numbers leaving the
// device's memory, and the CPU's words where numbers are refused.
#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "compressors/compressor.h"
#include "tests/compressors/compressed_cache.h"
#include "tests/error_of.h"
#include "tests/runtime/kv/device_under_test.h"

namespace kva {
namespace {

constexpr CacheShape kShape{.layers = 4, .group = 1, .head_dim = 16, .page_tokens = 8, .type = DType::kF16};

// A cache under a recipe whose layers get keys and values of their own.
class LayeredCache {
 public:
  LayeredCache(const std::string& text, ThreadPool& pool, const CacheShape& shape,
               std::shared_ptr<Backend> backend = nullptr)
      : recipe(Recipe::parse(text)),
        shape_(shape),
        cache(CompressedCache::options_of(recipe, shape, std::move(backend)), pool),
        compressor(recipe, cache, pool) {
    shape_.basis = recipe.key_basis();
    if (compressor.needs_sample()) compressor.fit(normal_sample(shape_, 16, 99));
    sequence = cache.add_sequence();
  }

  // source.tokens is what the layers have together, one behind the other.
  void feed(const Projections& source) {
    const int64_t cols = int64_t{shape_.kv_heads} * shape_.head_dim, tokens = source.tokens / shape_.layers;
    const Batch batch{{{sequence, 0, tokens, 0}}};
    cache.begin_step(batch);
    for (int layer = 0; layer < shape_.layers; ++layer) {
      const auto rows = [&](const std::vector<float>& of) {
        return std::vector<float>(of.begin() + layer * tokens * cols,
                                  of.begin() + (layer + 1) * tokens * cols);
      };
      std::vector<float> k = rows(source.k), v = rows(source.v);
      const CacheRows keys(cache, k, cols), values(cache, v, cols);
      cache.append(layer, batch, keys.view(), values.view());
    }
    cache.end_step(batch);
    compressor.after_step(batch, {});
  }

  std::vector<float> values(int layer, int kv_head, int64_t page) const {
    const PageAddress at{sequence, layer, kv_head, page, Side::kValue};
    std::vector<float> rows(static_cast<std::size_t>(cache.page(at).tokens * shape_.head_dim));
    cache.read_page(sequence, layer, kv_head, page, Side::kValue,
                    MatView<float>(rows.data(), cache.page(at).tokens, shape_.head_dim));
    return rows;
  }

  Recipe recipe;
  CacheShape shape_;
  KvCache cache;
  Compressor compressor;
  SequenceId sequence = 0;
};

class DeviceCoding : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!device) GTEST_SKIP() << "no device";
  }
  std::shared_ptr<DeviceOps> device = device_under_test();
  ThreadPool pool{2};
};

// Values, since keys are turned by cosines that a device's library may round differently.
TEST_P(DeviceCoding, StoresWhatTheCpuStores) {
  LayeredCache here(GetParam(), pool, kShape);
  LayeredCache there(GetParam(), pool, kShape, make_device_backend(device));
  const Projections source(kShape, int64_t{42} * kShape.layers, 7);
  here.feed(source);
  there.feed(source);
  for (int layer = 0; layer < kShape.layers; ++layer)
    for (int head = 0; head < kShape.kv_heads; ++head) {
      ASSERT_EQ(there.cache.pages(there.sequence, layer, head), here.cache.pages(here.sequence, layer, head));
      for (int64_t page = 0; page < here.cache.pages(here.sequence, layer, head); ++page)
        EXPECT_EQ(there.values(layer, head, page), here.values(layer, head, page))
            << "layer " << layer << ", head " << head << ", page " << page;
    }
  EXPECT_EQ(there.cache.ledger().payload, here.cache.ledger().payload);
  EXPECT_EQ(there.cache.ledger().scales, here.cache.ledger().scales);
}

using DeviceCodingInPlace = DeviceCoding;

// One word for each change of pages: whether a number was refused.
TEST_P(DeviceCodingInPlace, BringsNoNumbersToTheHost) {
  LayeredCache c(GetParam(), pool, kShape, make_device_backend(device));
  const Projections source(kShape, int64_t{42} * kShape.layers, 7);
  const int64_t before = downloaded_bytes(*device);
  if (before < 0) GTEST_SKIP() << "the device does not count";
  c.feed(source);
  const CompressorStats stats = c.compressor.stats();
  EXPECT_GT(stats.sides, 0);
  EXPECT_LE(downloaded_bytes(*device) - before, int64_t{sizeof(int32_t)} * stats.plans);
}

std::string name_of(const testing::TestParamInfo<const char*>& info) {
  std::string name;
  for (const char c : std::string(info.param)) name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return std::to_string(info.index) + "_" + name;
}

const auto kRecipes = testing::Values(
    "quant(bits=4)", "dense(fp8)", "layers(0): dense(f32); rest: dense(bf16)", "minicache(start=0)",
    "minicache(start=0, retain=0)", "minicache(start=0, retain=1)",
    "minicache(start=0, t=0.3, retain=0.3) | dense(f32)", "minicache(start=0, retain=0.3) | quant(bits=4)",
    "minicache(start=0) | nuq(bits=4)", "keys(plain); minicache(start=0)",
    "minicache(start=2) | quant(bits=8)", "nuq", "nuq(bits=4, axes=token)",
    "nuq(bits=2, axes=channel, outliers=0.05)", "nuq(bits=8, outliers=0)", "turboquant", "turboquant(bits=2)",
    "keys(plain); side(v): turboquant(bits=3); rest: nuq", "quant(bits=4, sinks=3)",
    "quant(bits=4, sinks=11, outliers=0.05, axes=kivi)", "quant(bits=4, sinks=5, rotate=true)",
    "pq(m=8, bits=4)", "pq(m=1, bits=3)", "pq(m=4, bits=8)", "keys(plain); pq(m=4, bits=2)");

INSTANTIATE_TEST_SUITE_P(Recipes, DeviceCoding, kRecipes, name_of);
INSTANTIATE_TEST_SUITE_P(Recipes, DeviceCodingInPlace, kRecipes, name_of);
// What is left of coded pages is gathered and coded anew, or all of them.
const auto kGathers = testing::Values(
    "AttentionSink(sink=2, window=24) | nuq", "AttentionSink(sink=2, window=24) | quant(bits=4)",
    "AttentionSink(sink=2, window=24) | dense(fp8)",
    "Random(keep=0.5) | quant(bits=3, axes=kivi, outliers=0.05)",
    "Random(keep=0.5) | quant(bits=8, axes=group, group=8, symmetric=true)",
    "Random(keep=0.5) | quant(bits=2, dense_channels=2)", "quant(bits=8)@seal | quant(bits=4)@tokens>24",
    "dense(fp8)@seal | nuq@tokens>24");
INSTANTIATE_TEST_SUITE_P(Gathering, DeviceCoding, kGathers, name_of);
INSTANTIATE_TEST_SUITE_P(Gathering, DeviceCodingInPlace, kGathers, name_of);
// The same of pages that a device does not decode on its own: on the host.
INSTANTIATE_TEST_SUITE_P(Evicting, DeviceCoding,
                         testing::Values("Random(keep=0.5) | minicache(start=0)",
                                         "AttentionSink(sink=2, window=24) | turboquant",
                                         "AttentionSink(sink=2, window=24) | quant(bits=4, sinks=3)",
                                         "AttentionSink(sink=2, window=24) | pq(m=8, bits=4)"),
                         name_of);

using DeviceCodingRefuses = DeviceCoding;

TEST_P(DeviceCodingRefuses, InTheCpusWords) {
  CacheShape shape = kShape;
  shape.type = DType::kF32;
  // A number of layer 2 and one of layer 1, of the second page.
  Projections source(shape, int64_t{42} * shape.layers, 7);
  const auto spoil = [&](int64_t layer, int64_t token, float by) {
    source.v[static_cast<std::size_t>(((layer * 42 + token) * shape.kv_heads + 1) * shape.head_dim + 5)] = by;
  };
  for (const float number : {std::numeric_limits<float>::infinity(), 3e38f}) {
    spoil(2, 9, number);
    spoil(1, 12, number);
    std::string words[2];
    int64_t held[2] = {};
    for (const bool there : {false, true}) {
      LayeredCache c(GetParam(), pool, shape, there ? make_device_backend(device) : nullptr);
      words[there ? 1 : 0] = error_of([&] { c.feed(source); });
      held[there ? 1 : 0] = c.cache.ledger().payload;
    }
    EXPECT_EQ(words[1], words[0]);
    EXPECT_EQ(held[1], held[0]);
  }
}

INSTANTIATE_TEST_SUITE_P(Recipes, DeviceCodingRefuses,
                         testing::Values("quant(bits=4)", "minicache(start=0)",
                                         "minicache(start=0) | quant(bits=4)",
                                         "minicache(start=1, retain=0) | nuq", "nuq", "turboquant",
                                         "quant(bits=4, sinks=3)", "quant(bits=4, sinks=11)",
                                         "pq(m=8, bits=4)"),
                         name_of);

}  // namespace
}  // namespace kva
