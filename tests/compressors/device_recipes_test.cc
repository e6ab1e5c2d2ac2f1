// Recipes on a cache whose pages are on a device: attention reads what is stored, the ledger is both
// allocators', and what a device cannot do is refused by name before anything runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/compressors/compressed_cache.h"
#include "tests/compressors/stored_attention.h"
#include "tests/error_of.h"
#include "tests/runtime/kv/device_under_test.h"

namespace kva {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr CacheShape kShape{.layers = 2, .group = 2, .head_dim = 16, .page_tokens = 8, .type = DType::kF16};

class DeviceRecipe : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!device) GTEST_SKIP() << "no device";
  }
  std::shared_ptr<DeviceOps> device = device_under_test();
  ThreadPool pool{2};
};

TEST_P(DeviceRecipe, AttentionReadsWhatIsStored) {
  CompressedCache c(GetParam(), pool, kShape, nullptr, 0, make_device_backend(device));
  const Projections source(c.shape, 55, 1);
  const SequenceId id = c.driver.add(source);
  c.prompt(id, 38, 38);
  c.feed(id, 12, 6);
  for (const int64_t tokens : {int64_t{1}, int64_t{3}}) {
    const Batch batch = c.driver.step({{id, tokens}});
    const auto expected = attention_of_stored(c, id, kShape.layers - 1, source);
    const auto& output = c.driver.output(id);
    const std::size_t row = static_cast<std::size_t>(c.driver.cache.tokens(id) - 1) * expected.size();
    double scale = 1.0;
    for (const double value : expected) scale = std::max(scale, std::abs(value));
    for (std::size_t i = 0; i < expected.size(); ++i)
      ASSERT_NEAR(output[row + i], expected[i], 2e-5 * scale) << i << " tokens " << tokens;
    c.after(batch);
  }
  const CompressorStats stats = c.compressor.stats();
  EXPECT_EQ(stats.predicted_bytes, stats.freed_bytes);
  c.free(id);
  const ByteLedger ledger = c.driver.cache.ledger();
  EXPECT_EQ(ledger.payload + ledger.scales + ledger.slack, 0);
}

// Step by step over page boundaries and whatever the recipe does between steps, beside a sequence that ends.
TEST_P(DeviceRecipe, RecordedStepsGiveTheBitsOfLaunchedOnes) {
  std::vector<std::vector<float>> outputs;
  for (const bool records : {true, false}) {
    const auto own = device_under_test();
    own->keep_recordings(records ? 8 : 0);
    CompressedCache c(GetParam(), pool, kShape, nullptr, 0, make_device_backend(own));
    const Projections source(c.shape, 70, 1), other(c.shape, 30, 2);
    const SequenceId id = c.driver.add(source), beside = c.driver.add(other);
    c.prompt(id, 38, 38);
    c.prompt(beside, 9, 9);
    for (int i = 0; i < 8; ++i) c.step({{id, 1}, {beside, 1}});
    outputs.push_back(c.driver.output(beside));
    c.free(beside);
    c.feed(id, 16, 1);
    outputs.push_back(c.driver.output(id));
    const RecordingCounts counts = own->recordings();
    if (!records) {
      EXPECT_EQ(counts, RecordingCounts());
    } else {
      EXPECT_EQ(counts.launched + counts.replayed, 24);
      EXPECT_GT(counts.replayed, 8);
    }
  }
  EXPECT_EQ(outputs[0], outputs[2]);
  EXPECT_EQ(outputs[1], outputs[3]);
}

// Where numbers are coded, one that rounds to the other side is a step off: bytes are what must be equal.
TEST_P(DeviceRecipe, HoldsAsManyBytesAsTheCpu) {
  CompressedCache here(GetParam(), pool, kShape);
  CompressedCache there(GetParam(), pool, kShape, nullptr, 0, make_device_backend(device));
  const Projections source(kShape, 40, 2);
  // In chunks, so that queries also see, and weigh, pages that are compressed already.
  for (CompressedCache* c : {&here, &there}) c->prompt(c->driver.add(source), 40, 8);
  EXPECT_EQ(there.driver.cache.ledger().payload, here.driver.cache.ledger().payload);
  EXPECT_EQ(there.driver.cache.ledger().scales, here.driver.cache.ledger().scales);
  for (int layer = 0; layer < kShape.layers; ++layer)
    EXPECT_EQ(there.positions(0, layer, 1), here.positions(0, layer, 1));
}

// Chunks of queries against pages that are compressed already, whose numbers go to tensor cores. Packed
// numbers are rounded to f16 for those, by 2^-11 of each: scores, whose 64 products have sizes of less than
// 128 together and are divided by 8, move by less than 2^-7, weights by twice that share, and so do sums of
// values below 4. Those and the weights are rounded too, by less.
TEST_P(DeviceRecipe, ChunksReadWhatIsStored) {
  const CacheShape shape{.layers = 1, .group = 2, .head_dim = 64, .page_tokens = 8, .type = DType::kF16};
  CompressedCache c(GetParam(), pool, shape, nullptr, 0, make_device_backend(device));
  const Projections source(c.shape, 70, 1);
  const SequenceId id = c.driver.add(source);
  c.prompt(id, 44, 11);
  const Batch batch = c.driver.step({{id, 9}});
  const auto expected = attention_of_stored(c, id, 0, source);
  const auto& output = c.driver.output(id);
  const std::size_t row = static_cast<std::size_t>(c.driver.cache.tokens(id) - 1) * expected.size();
  double scale = 1.0;
  for (const double value : expected) scale = std::max(scale, std::abs(value));
  for (std::size_t i = 0; i < expected.size(); ++i)
    ASSERT_NEAR(output[row + i], expected[i], 0x1p-4 * scale) << i;
  c.after(batch);
}

std::string name_of(const testing::TestParamInfo<const char*>& info) {
  std::string name;
  for (const char c : std::string(info.param)) name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return std::to_string(info.index) + "_" + name;
}

INSTANTIATE_TEST_SUITE_P(
    Recipes, DeviceRecipe,
    testing::Values(
        "Baseline", "dense(f32)", "dense(bf16)", "dense(fp8)", "dense(fp8_e5m2)", "dedup(exact, scope=cache)",
        "dedup(cos=0.2)", "layershare(start=0)", "keys(plain); dense(f16)",
        "keys(page-relative); dedup(exact, scope=cache)", "quant(bits=8)", "quant(k=8,v=4)",
        "quant(k=4,v=4,axes=kivi,group=page,outliers=0.01)",
        "quant(bits=3, axes=group, group=5, symmetric=true)", "quant(bits=2, axes=kivi, group=7, window=20)",
        "quant(bits=4, dense_channels=2, outliers=0.05, norm_correct=true)", "keys(plain); quant(k=16, v=2)",
        "keys(plain); quant(k=3, v=4, axes=kivi, outliers=0.05, norm_correct=true, dense_channels=1)",
        "keys(page-relative); quant(bits=4, axes=kivi)", "quant(bits=4, rotate=true, norm_correct=true)",
        "side(v): quant(bits=4, rotate=true); rest: quant(bits=8)",
        "side(k): quant(bits=3, rotate=true); rest: dense(f32)",
        "keys(page-relative); side(v): quant(bits=4, rotate=true); rest: quant(bits=4)",
        "dedup(exact, scope=cache) | quant(bits=4)", "quant(bits=8)@seal | quant(bits=4)@tokens>40",
        "budget(bits=9)", "Random(keep=0.5)", "Random(keep=0.5) | quant(bits=4)",
        "SlidingWindow(window=0.2, important=0.1)", "AttentionSink(sink=2, window=24)",
        "keys(plain); AttentionSink(sink=3, window=17) | quant(k=4,v=4,axes=kivi,group=page,outliers=0.01)",
        "L2Norm(keep=0.3, skip_layers=1) | quant(bits=8)",
        "keys(plain); KeyDiff(keep=0.4, sinks=2, recent=9)", "dedup(cos=0.3) | Random(keep=0.3)",
        "layers(0): dense(f32); rest: quant(bits=2)", "evict(keep=0.5, window=16)",
        "keys(plain); evict(keep=25%, sinks=0, window=0) | dense(f32)", "merge(keep=0.5, window=0)",
        "keys(plain); merge(0.3, keys=true)", "H2O(keep=0.4)",
        "H2O(keep=30, recent=5) | quant(bits=4)@tokens>64", "SnapKV(window=8, capacity=0.4)",
        "PyramidKV(window=4, capacity=20) | quant(bits=8)", "AdaKV(window=4, kernel=3, capacity=0.3)",
        "FastGen(T=0.8, r_f=0.2, r_l=0.2)", "DuoAttention(retrieval=0.5, sink=2, recent=20)",
        "quant(bits=4, rotate=true) | H2O(keep=0.5)", "minicache(start=0)",
        "minicache(start=0, retain=0.3) | quant(bits=4)", "minicache(start=0, retain=0)",
        "minicache(start=0, retain=1) | quant(k=3, v=2, axes=kivi, outliers=0.05, norm_correct=true)",
        "keys(plain); minicache(start=0, retain=0.2) | quant(bits=8)",
        "keys(page-relative); minicache(start=0, retain=0.2) | dense(f32)",
        "minicache(start=0, retain=0.1)@seal | quant(bits=4)@tokens>40", "minicache(start=0) | H2O(keep=0.5)",
        "Random(keep=0.5) | minicache(start=0)", "lowrank(rank=8, fit_tokens=16)",
        "lowrank(rank=5, fit_tokens=16)", "lowrank(rank=1, fit_tokens=8)",
        "lowrank(rank=8, fit_tokens=16) | quant(bits=4)", "lowrank(rank=7, fit_tokens=16) | quant(bits=3)",
        "lowrank(rank=5, fit_tokens=16) | quant(k=4,v=2,axes=kivi,group=4,outliers=0.1,norm_correct=true)",
        "lowrank(rank=3, fit_tokens=16) | quant(bits=2, dense_channels=1, outliers=0.05)",
        "lowrank(rank=8, fit_tokens=16) | quant(bits=4, rotate=true)",
        "lowrank(rank=6, fit_tokens=8, refresh=0.3)", "lowrank(energy=0.9, fit_tokens=16) | quant(bits=8)",
        "lowrank(rank=33, layers=2, fit_tokens=40)",
        "lowrank(rank=12, layers=2, fit_tokens=16) | quant(bits=4)",
        "lowrank(rank=16, layers=2, fit_tokens=16) | quant(bits=4, rotate=true)",
        "side(k): lowrank(rank=5, fit_tokens=16); rest: quant(bits=4, rotate=true)",
        "side(v): lowrank(rank=9, fit_tokens=16); rest: minicache(start=0)",
        "keys(plain); side(v): lowrank(rank=5, fit_tokens=16) | quant(bits=4); rest: quant(bits=4, "
        "axes=kivi)",
        "lowrank(rank=8, method=randomized, fit_tokens=16) | dense(fp8)",
        "lowrank(rank=6, fit_tokens=16) | H2O(keep=0.5)", "nuq", "nuq(bits=4, axes=token)",
        "nuq(bits=2, axes=channel, outliers=0.05)", "nuq(bits=8, outliers=0)", "keys(plain); nuq",
        "keys(page-relative); nuq(bits=4)", "side(k): nuq; rest: quant(bits=4)",
        "side(v): nuq(bits=4); rest: dense(f16)", "nuq | H2O(keep=0.4)",
        "AttentionSink(sink=2, window=24) | nuq", "minicache(start=0) | nuq(bits=4)",
        "lowrank(rank=5, fit_tokens=16) | nuq(bits=4, outliers=0.1)", "turboquant", "turboquant(bits=2)",
        "side(k): turboquant; rest: nuq", "keys(plain); side(v): turboquant(bits=3); rest: nuq",
        "turboquant | H2O(keep=0.5)", "quant(bits=4, sinks=3)",
        "keys(plain); quant(bits=4, sinks=3, axes=kivi, outliers=0.05, norm_correct=true)",
        "keys(page-relative); quant(bits=3, sinks=11)", "quant(bits=4, sinks=5, rotate=true)",
        "quant(k=16, v=4, sinks=5)", "quant(bits=4, sinks=3) | H2O(keep=0.5)",
        "side(v): quant(bits=8, sinks=2); rest: quant(bits=4, sinks=6, axes=kivi)",
        "lowrank(rank=8, fit_tokens=16) | quant(bits=4, sinks=3)", "gear(rank=3)",
        "keys(plain); gear(bits=2)", "keys(page-relative); gear(bits=3, rank=1, outliers=0)",
        "gear | H2O(keep=0.5)", "side(k): gear(rank=2); rest: nuq(bits=2)", "pq(m=8, bits=4)",
        "pq(m=1, bits=3)", "pq(m=16, bits=2)", "keys(plain); pq(m=4, bits=4)",
        "keys(page-relative); pq(m=8, bits=2)", "pq(m=4, bits=8)", "pq(m=8, bits=8) | H2O(keep=0.5)",
        "lowrank(rank=8, fit_tokens=16) | gear(rank=2)",
        "lowrank(rank=6, layers=2, fit_tokens=16) | nuq(bits=3, axes=token)",
        "keys(plain, cache-relative); AttentionSink(sink=2, window=24)",
        "keys(plain, cache-relative); H2O(keep=0.5) | quant(bits=4)@tokens>64",
        "keys(plain, cache-relative); minicache(start=0, retain=0.2) | Random(keep=0.5)",
        "keys(plain); lowrank(rank=5, fit_tokens=16)", "keys(page-relative); lowrank(rank=5, fit_tokens=16)",
        "keys(plain); lowrank(rank=8, fit_tokens=16) | "
        "quant(k=4,v=2,axes=kivi,group=4,outliers=0.1,norm_correct=true)",
        "keys(page-relative); quant(bits=4, rotate=true, norm_correct=true)",
        "keys(page-relative); lowrank(rank=8, fit_tokens=16) | quant(bits=4, rotate=true)",
        "keys(plain); lowrank(rank=12, layers=2, fit_tokens=16) | nuq(bits=4, axes=token)",
        "keys(plain); lowrank(rank=33, layers=2, fit_tokens=40)", "keys(page-relative); turboquant",
        "keys(plain); lowrank(rank=8, fit_tokens=16) | gear(rank=2)",
        "keys(plain, cache-relative); lowrank(rank=6, fit_tokens=16) | H2O(keep=0.5)"),
    name_of);

using DeviceRefusal = DeviceRecipe;

// Before a page is there.
TEST_P(DeviceRefusal, NamesTheMethodAndWhatToDo) {
  const Recipe recipe = Recipe::parse(GetParam());
  const auto classes = std::make_shared<TokenClasses>(std::vector(kIdClasses.begin(), kIdClasses.end()));
  const auto make = [&](std::shared_ptr<Backend> backend) {
    KvCache cache(CompressedCache::options_of(recipe, kShape, std::move(backend)), pool);
    const Compressor compressor(recipe, cache, pool, 0, classes);
  };
  EXPECT_EQ(error_of([&] { make(nullptr); }), "no error");
  EXPECT_THAT(error_of([&] { make(make_device_backend(device)); }),
              AllOf(HasSubstr(device->name()), HasSubstr("use --device cpu")));
}

INSTANTIATE_TEST_SUITE_P(
    Recipes, DeviceRefusal,
    testing::Values("minicache(start=0) | quant(bits=4, rotate=true)",
                    "minicache(start=0) | quant(bits=4, sinks=3)",
                    "lowrank(rank=5, fit_tokens=16) | gear(rank=3)",
                    "lowrank(rank=5, fit_tokens=16) | quant(bits=4, sinks=2)",
                    "minicache(start=0) | gear(rank=3)", "minicache(start=0) | turboquant", "zstd",
                    "dense(f16) | zstd@tokens>40",
                    "minicache(start=0)@prefill | quant(bits=4, sinks=19)@prefill",
                    "lowrank(energy=0.9, fit_tokens=16) | gear(rank=3)",
                    "layers(1)&side(v): lowrank(layers=2, rank=3) | turboquant; rest: nuq",
                    "side(k): lowrank(layers=2, rank=3) | turboquant; rest: pq"),
    name_of);

}  // namespace
}  // namespace kva
