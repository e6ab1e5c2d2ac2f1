// What holds for every recipe: attention reads what is stored, the ledger is the allocator's, results do not
// depend on threads or company, and what is freed is gone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "runtime/error.h"
#include "tests/compressors/compressed_cache.h"
#include "tests/compressors/stored_attention.h"

namespace kva {
namespace {

constexpr int kLayers = 4;

class EveryRecipe : public testing::TestWithParam<const char*> {};

TEST_P(EveryRecipe, AttentionReadsWhatIsStored) {
  ThreadPool pool(2);
  CompressedCache c(GetParam(), pool);
  const Projections source(c.shape, 150, 1);
  const SequenceId id = c.driver.add(source);
  c.prompt(id, 130, 13);  // tiles
  c.feed(id, 13, 1);      // runs
  // One more token of each way of reading; both see every page as it now lies.
  for (const int64_t tokens : {int64_t{1}, int64_t{6}}) {
    const Batch batch = c.driver.step({{id, tokens}});
    const auto expected = attention_of_stored(c, id, kLayers - 1, source);
    const auto& output = c.driver.output(id);
    const std::size_t row = static_cast<std::size_t>(c.driver.cache.tokens(id) - 1) * expected.size();
    double scale = 0.0;
    for (const double value : expected) scale = std::max(scale, std::abs(value));
    for (std::size_t i = 0; i < expected.size(); ++i)
      ASSERT_NEAR(output[row + i], expected[i], 2e-5 * std::max(1.0, scale)) << i << " tokens " << tokens;
    c.after(batch);
  }
}

TEST_P(EveryRecipe, BitsDependOnNeitherThreadsNorCompany) {
  ThreadPool one(1), three(3);
  const auto alone = [&](unsigned seed, int64_t prompt, ThreadPool& pool) {
    CompressedCache c(GetParam(), pool);
    const Projections source(c.shape, prompt + 20, seed);
    const SequenceId id = c.driver.add(source);
    c.prompt(id, prompt, prompt);
    c.feed(id, 20, 1);
    return c.driver.output(id);
  };
  EXPECT_EQ(alone(2, 90, one), alone(2, 90, three));
  CompressedCache both(GetParam(), three);
  const Projections a(both.shape, 110, 2), b(both.shape, 57, 3);
  const SequenceId ida = both.driver.add(a), idb = both.driver.add(b);
  both.begin_prompt(ida, 90);
  both.begin_prompt(idb, 37);
  both.step({{ida, 90}, {idb, 37}});
  for (const SequenceId id : {ida, idb}) both.compressor.end_prompt(id);
  for (int i = 0; i < 20; ++i) both.step({{idb, 1}, {ida, 1}});
  EXPECT_EQ(both.driver.output(ida), alone(2, 90, one));
  EXPECT_EQ(both.driver.output(idb), alone(3, 37, one));
}

TEST_P(EveryRecipe, FreesEverythingAndPredictsIt) {
  ThreadPool pool(2);
  CompressedCache c(GetParam(), pool);
  const Projections a(c.shape, 100, 4), b(c.shape, 1, 5), empty(c.shape, 0, 6);
  const SequenceId ida = c.driver.add(a), idb = c.driver.add(b), idc = c.driver.add(empty);
  c.begin_prompt(ida, 64);
  c.step({{ida, 64}, {idb, 1}});
  c.compressor.end_prompt(ida);
  c.feed(ida, 36, 9);
  const CompressorStats stats = c.compressor.stats();
  EXPECT_EQ(stats.predicted_bytes, stats.freed_bytes);
  for (const SequenceId id : {ida, idb, idc}) c.free(id);
  const ByteLedger ledger = c.driver.cache.ledger();
  EXPECT_EQ(ledger.payload + ledger.scales + ledger.slack, 0);
  // The next sequence in the same place starts from nothing.
  const Projections again(c.shape, 40, 7);
  const SequenceId id = c.driver.add(again);
  c.feed(id, 40, 40);
}

TEST_P(EveryRecipe, NumbersThatAreNotFiniteAreRefusedOrKept) {
  ThreadPool pool(1);
  CompressedCache c(GetParam(), pool);
  Projections source(c.shape, 400, 8);
  source.v[5] = std::numeric_limits<float>::quiet_NaN();
  const SequenceId id = c.driver.add(source);
  try {
    for (int i = 0; i < 400 / 16; ++i) c.after(c.driver.step({{id, 16}}));
    const PageFacts facts = c.driver.cache.page({id, kLayers - 1, 0, 0, Side::kValue});
    const auto rows = c.page(id, kLayers - 1, 0, 0, Side::kValue);
    const bool there = facts.contiguous ? facts.start == 0 : facts.positions[0] == 0;
    EXPECT_TRUE(!there || std::isnan(rows[5])) << "NaN went in and came out as a number";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(),
                testing::AllOf(testing::HasSubstr("KV head 0, V"), testing::HasSubstr("position 0")));
  }
}

TEST_P(EveryRecipe, PagesOfEqualOrTinyNumbersStayFinite) {
  ThreadPool pool(1);
  for (const float value : {0.0f, 3.0f, 1e-40f}) {
    CompressedCache c(GetParam(), pool);
    Projections source(c.shape, 330, 9);
    std::fill(source.k.begin(), source.k.end(), value);
    std::fill(source.v.begin(), source.v.end(), value);
    const SequenceId id = c.driver.add(source);
    c.feed(id, 330, 33);
    // CaM adds values to values instead of averaging them: at most a page of 16 to one. Centroids know only
    // what they have learnt: there the nearest one is finite, and no nearer.
    const std::string recipe = GetParam();
    float within = 0.02f * value + 1e-6f;
    if (recipe.find("by=cam") != std::string::npos) within = 15.0f * value + 1e-6f;
    if (recipe.find("pq") != std::string::npos) within = 10.0f;
    for (const float out : c.driver.output(id)) ASSERT_NEAR(out, value, within);
  }
}

std::string name_of(const testing::TestParamInfo<const char*>& info) {
  std::string name;
  for (const char c : std::string(info.param)) name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return std::to_string(info.index) + "_" + name;
}

INSTANTIATE_TEST_SUITE_P(
    Recipes, EveryRecipe,
    testing::Values(
        "Baseline", "dense(bf16)", "keys(plain); dense(f32)", "dedup(exact)",
        "keys(page-relative); dedup(exact, scope=cache)", "dedup(cos=0.2)",
        "keys(plain); dedup(l2=0.2, scope=head)", "layershare(start=0)", "layershare(start=1, every=3)",
        "minicache(start=0)", "keys(plain); minicache(start=0, retain=0)",
        "keys(page-relative); minicache(start=2, t=0.5, retain=20%)", "dedup(cos=0.3) | minicache(start=0)",
        "layers(0): dense(f16); rest: minicache(start=1)@prefill",
        "side(v): minicache@every=32; rest: dedup(exact)@tokens>40",
        "layershare@seal | dense(bf16)@tokens>64", "lowrank(fit_tokens=32)",
        "lowrank(rank=4, fit_tokens=16, refresh=0.1) | dense(bf16)",
        "keys(plain); lowrank(energy=0.9, fit_tokens=48, method=randomized)",
        "keys(page-relative); lowrank(layers=2, fit_tokens=64)",
        "lowrank(layers=3, rank=5, fit_tokens=32, refresh=0.3) | dense(f32)",
        "layershare(start=0) | lowrank(fit_tokens=32)",
        "dedup(cos=0.3) | lowrank(layers=4, rank=16, fit_tokens=32)", "lowrank(fit_tokens=32) | nuq(bits=8)",
        "lowrank(layers=2, fit_tokens=64)@prefill | nuq(axes=token)@prefill",
        "lowrank(fit_tokens=32) | minicache(start=0)", "lowrank(fit_tokens=32)@every=48",
        "evict(0.5, window=0) | lowrank(rank=4, fit_tokens=32, refresh=0.3)",
        "merge(window=0) | lowrank(layers=2, fit_tokens=64)",
        "lowrank(rank=4, fit_tokens=32) | merge(window=0)",
        "evict(0.5, window=0) | dense(f32)@tokens>64 | lowrank(layers=4, rank=3, fit_tokens=32)@tokens>64",
        "evict(keep=0.5, window=16)", "keys(plain); evict(keep=25%, sinks=0, window=0) | dense(f32)",
        "layers(0): dense(f16); rest: evict(0.3, window=20)@every=48", "merge(keep=0.5, window=0)",
        "keys(plain); merge(0.3, keys=true)",
        "merge(0.4, by=kvmerger, threshold=-1, bias=false) | dense(bf16)", "merge(by=d2o, sinks=0, window=5)",
        "keys(plain); merge(0.25, by=d2o, keys=true)@prefill", "merge(by=cam, next=2, window=8)",
        "layershare(start=0) | merge(window=0)", "dedup(cos=0.2) | merge(window=0)",
        "merge(window=0) | dedup(exact, scope=cache)", "merge(window=0) | dedup(cos=0.4)",
        "merge(window=0) | minicache(start=0)", "merge(window=0) | layershare(start=0)",
        "evict(0.7, window=0) | merge(0.6, by=kvmerger)@tokens>64", "quant(bits=8)", "quant(k=8,v=4)",
        "quant(k=4,v=4,axes=kivi,group=page,outliers=0.01)",
        "quant(bits=3, axes=group, group=5, symmetric=true)",
        "quant(bits=2, axes=kivi, group=7, sinks=4, window=20)",
        "quant(bits=4, rotate=true, norm_correct=true)", "quant(bits=4, dense_channels=2, outliers=0.05)",
        "keys(plain); quant(k=16, v=2)", "dedup(exact, scope=cache) | quant(bits=4)",
        "minicache(start=0) | quant(bits=4, norm_correct=true)",
        "minicache(start=0, retain=0.2) | quant(bits=8, rotate=true)",
        "lowrank(layers=2, rank=16, fit_tokens=32) | quant(bits=4, rotate=true)",
        "lowrank(rank=0.5, layers=2, fit_tokens=32) | quant(bits=3, outliers=0.02)",
        "lowrank(rank=8, fit_tokens=32) | quant(bits=4)", "quant(bits=8)@seal | quant(bits=4)@tokens>64",
        "merge(window=0) | quant(bits=4, sinks=3)", "dense(fp8)", "dense(fp8_e5m2)", "nuq",
        "keys(plain); nuq(bits=8, axes=token)",
        "keys(page-relative); minicache(start=0) | nuq(bits=4, axes=channel)", "pq(m=8)",
        "keys(plain); side(k): pq(m=4, bits=4)", "keys(page-relative); pq(m=16, bits=3)@prefill",
        "gear(rank=3)", "keys(plain); gear(bits=2, rank=1, axes=token, group=8)",
        "merge(window=0) | gear(bits=8, outliers=0)", "lowrank(rank=8, fit_tokens=32) | gear(bits=3, rank=2)",
        "budget(bits=9)", "keys(plain); side(v): budget(ratio=1.5, outliers=0)",
        "evict(0.5, window=0) | budget(bits=12, axes=token)", "zstd", "zstd(level=1, window=40)",
        "dedup(exact, scope=cache) | zstd", "quant(bits=8) | zstd@tokens>64",
        "minicache(start=0) | quant(bits=4) | zstd", "lowrank(rank=8, fit_tokens=32) | quant(bits=4) | zstd",
        "lowrank(layers=2, fit_tokens=64) | zstd", "merge(window=0) | zstd", "pq(m=8) | zstd@prefill",
        "layershare(start=0) | zstd", "Random(keep=0.5)", "keys(plain); AttentionTop(keep=0.3)",
        "AttentionBottom(keep=20, scope=layer)@tokens>40", "HybridNPercent(keep=0.4) | dense(bf16)",
        "SlidingWindow(window=0.2, important=0.1)", "AttentionSink(sink=2, window=24)",
        "keys(plain); AttentionSink(sink=3, window=17) | quant(k=4,v=4,axes=kivi,group=page,outliers=0.01)",
        "AdaptiveAttention(base_keep=0.4)@every=32", "L2Norm(keep=0.3, skip_layers=1) | quant(bits=8)",
        "keys(plain); KeyDiff(keep=0.4, sinks=2, recent=9)", "H2O(keep=0.4)",
        "H2O(keep=30, recent=5) | quant(bits=4)@tokens>64", "layers(0): dense(f16); rest: H2O(keep=0.3)",
        "SnapKV(window=8, capacity=0.4)", "PyramidKV(window=4, capacity=20) | quant(bits=8)",
        "AdaKV(window=4, kernel=3, capacity=0.3)", "DuoAttention(retrieval=0.5, sink=2, recent=20)",
        "FastGen(T=0.8, r_f=0.2, r_l=0.2)", "keys(plain); FastGen(T=0.5, r_f=0.1, r_l=0.1) | nuq(bits=8)",
        "dedup(exact, scope=cache) | H2O(keep=0.5)", "dedup(cos=0.3) | Random(keep=0.3)",
        "layershare(start=0) | H2O(keep=0.4)", "minicache(start=0) | AttentionTop(keep=0.4)",
        "keys(plain); lowrank(rank=8, fit_tokens=32, refresh=0.1) | H2O(keep=0.5)",
        "lowrank(layers=2, rank=16, fit_tokens=32) | Random(keep=0.3)",
        "merge(window=0) | AttentionTop(keep=0.3)", "evict(0.5, window=0) | H2O(keep=0.3)",
        "quant(bits=8) | zstd | H2O(keep=0.3)", "H2O(keep=0.5) | Random(keep=0.3)", "pq(m=8) | H2O(keep=0.3)",
        "gear(rank=2) | AttentionSink(sink=1, window=20)"),
    name_of);

}  // namespace
}  // namespace kva
