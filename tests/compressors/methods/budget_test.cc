#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "compressors/part_probe.h"
#include "tests/compressors/compressed_cache.h"
#include "tests/error_of.h"

namespace kva {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr CacheShape kShape{.layers = 2, .head_dim = 64, .page_tokens = 64, .type = DType::kF16};

// A text in which layer 1's values are the only ones that few levels cannot say: the others take two values.
PageSet uneven_sample(const CacheShape& shape) {
  const auto numbers = normal_numbers(4 * 2 * 64 * 64, 3);
  return make_sample(shape, 4, [&](int layer, Side side, int64_t page, int64_t head, int64_t t, int64_t c) {
    const auto at = static_cast<std::size_t>(((page * 2 + head) * 64 + t) * 64 + c);
    const float number = numbers[at];
    return layer == 1 && side == Side::kValue ? number : number > 0.0f ? 1.0f : 0.0f;
  });
}

std::string codec_of(const CompressedCache& c, int layer, Side side) {
  return c.driver.cache.page({0, layer, 0, 0, side}).codec;
}

TEST(Budget, SpendsBitsWhereTheTextLosesMost) {
  ThreadPool pool(2);
  const PageSet sample = uneven_sample(kShape);
  CompressedCache c("budget(bits=4.5,outliers=0)", pool, kShape, &sample);
  const Projections source(kShape, 64, 1);
  c.feed(c.driver.add(source), 64, 64);
  EXPECT_THAT(codec_of(c, 1, Side::kValue), HasSubstr("bits=8"));
  for (const Side side : {Side::kKey, Side::kValue}) EXPECT_THAT(codec_of(c, 0, side), HasSubstr("bits=2"));
  EXPECT_THAT(codec_of(c, 1, Side::kKey), HasSubstr("bits=2"));
  EXPECT_THAT(c.compressor.stats().remarks, testing::Contains(HasSubstr("values: 8 bits in layers 1")));
}

TEST(Budget, HoldsWhatItPromisedOverManyPages) {
  ThreadPool pool(2);
  for (const char* recipe : {"budget(bits=4.5)", "budget(ratio=3.2)", "budget(bytes=600000,tokens=2048)"}) {
    CompressedCache c(recipe, pool, kShape, nullptr);
    const Projections source(kShape, 2048, 2);
    c.feed(c.driver.add(source), 2048, 256);
    const double numbers = 2048.0 * 2 * 2 * 2 * 64;
    const double bits = 8.0 * static_cast<double>(c.driver.cache.ledger().held()) / numbers;
    const double asked = std::string(recipe).find("ratio") != std::string::npos   ? 16.0 / 3.2
                         : std::string(recipe).find("bytes") != std::string::npos ? 8.0 * 600000 / numbers
                                                                                  : 4.5;
    // What slabs and tables keep free comes on top.
    const ByteLedger ledger = c.driver.cache.ledger();
    EXPECT_LE(bits - 8.0 * static_cast<double>(ledger.slack) / numbers, asked * 1.005) << recipe;
    EXPECT_LE(bits, asked * 1.03) << recipe;
    EXPECT_GE(bits, asked * 0.8) << recipe;
  }
}

TEST(Budget, CountsAttentionWhereTheTextComesWithIt) {
  ThreadPool pool(1);
  const CacheShape shape{.layers = 2, .kv_heads = 1, .head_dim = 64, .page_tokens = 64, .type = DType::kF16};
  // Both layers hold the same numbers: those of odd tokens are hard to code, those of even tokens take two
  // values. Layer 0's attention goes to odd tokens, layer 1's to even ones.
  const auto numbers = normal_numbers(64 * 64, 3);
  PageSet sample = make_sample(shape, 1, [&](int, Side, int64_t, int64_t, int64_t t, int64_t c) {
    const float number = numbers[static_cast<std::size_t>(t * 64 + c)];
    return t % 2 == 1 ? number : number > 0.0f ? 1.0f : 0.0f;
  });
  std::vector<float> odd(64), even(64);
  for (std::size_t t = 0; t < 64; ++t) (t % 2 == 1 ? odd : even)[t] = 1.0f;
  sample.attention_mass = {odd.data(), even.data()};
  CompressedCache c("side(v): budget(bits=6,outliers=0,axes=token)", pool, shape, &sample);
  const Projections source(shape, 64, 1);
  c.feed(c.driver.add(source), 64, 64);
  EXPECT_THAT(codec_of(c, 0, Side::kValue), HasSubstr("bits=8"));
  EXPECT_THAT(codec_of(c, 1, Side::kValue), HasSubstr("bits=2"));
}

double counter(const CompressedCache& c, const std::string& name) {
  for (const auto& [known, value] : c.compressor.stats().counters)
    if (known == name) return value;
  return -1.0;
}

// All parts hold the same numbers, so that only the losses tell them apart.
TEST(Budget, SpendsBitsWhereTheModelWasSeenToLoseMost) {
  ThreadPool pool(1);
  const auto numbers = normal_numbers(2 * 64 * 64, 3);
  PageSet sample = make_sample(kShape, 1, [&](int, Side, int64_t, int64_t head, int64_t t, int64_t c) {
    return numbers[static_cast<std::size_t>((head * 64 + t) * 64 + c)];
  });
  sample.part_losses = {0.5, 0.001, 0.001, 0.001};  // keys and values of layer 0, then of layer 1
  CompressedCache c("budget(bits=5.2)", pool, kShape, &sample);
  EXPECT_THAT(c.compressor.stats().remarks,
              testing::Contains(AllOf(HasSubstr("keys: 8 bits in layers 0, 3 bits in layers 1"),
                                      HasSubstr("values: 3 bits in layers 0,1"))));
  // In the probe's own codes a part loses what was measured.
  CompressedCache probe("layers(1): budget(bits=3.92)", pool, kShape, &sample);
  EXPECT_THAT(probe.compressor.stats().remarks, testing::Contains(HasSubstr("keys: 3 bits")));
  EXPECT_NEAR(counter(probe, "budget.loss_planned"), 0.002, 1e-12);
}

// What the losses are measured with is what the errors are measured with.
TEST(Budget, TheProbesRecipeStoresTheProbesCodes) {
  ThreadPool pool(1);
  CompressedCache c(kPartProbe, pool, kShape, nullptr);
  const Projections source(kShape, 64, 1);
  c.feed(c.driver.add(source), 64, 64);
  for (const Side side : {Side::kKey, Side::kValue}) {
    const StoredSide stored = c.driver.cache.side(c.driver.cache.page({0, 0, 0, 0, side}).side);
    const auto probe = part_probe_codec(side);
    EXPECT_EQ(stored.codec->name(), probe->name());
    EXPECT_EQ(static_cast<int64_t>(stored.payload.size()), probe->bytes(64, 64));  // with its outliers
  }
}

TEST(Budget, RefusesWhatCannotBe) {
  ThreadPool pool(1);
  const auto refused = [&](const std::string& recipe) {
    return error_of([&] { CompressedCache c(recipe, pool, kShape, nullptr); });
  };
  EXPECT_EQ(refused("budget(bits=16)"), "no error");
  EXPECT_THAT(refused("budget(bits=1.5)"),
              AllOf(HasSubstr("budget(bits=1.5)"), HasSubstr("expected at least")));
  EXPECT_EQ(refused("budget"), "no error");
  EXPECT_THAT(refused("budget(bits=4,ratio=4)"), HasSubstr("one of bits, ratio and bytes, found 2"));
  EXPECT_THAT(refused("budget(bits=4,tokens=4096)"), HasSubstr("bytes"));
  EXPECT_THAT(refused("budget(bits=0)"), HasSubstr("bits"));
}

TEST(Budget, WantsPagesAsTheTextHasThem) {
  ThreadPool pool(1);
  const CacheShape shape{.layers = 1, .head_dim = 16, .type = DType::kF16};
  CompressedCache c("lowrank(rank=4,fit_tokens=16) | budget(bits=9)", pool, shape, nullptr);
  const Projections source(shape, 32, 1);
  const SequenceId id = c.driver.add(source);
  const Batch batch = c.driver.step({{id, 32}});
  EXPECT_THAT(error_of([&] { c.compressor.after_step(batch, {}); }),
              AllOf(HasSubstr("layer 0, KV head 0"), HasSubstr("another step's transform")));
}

}  // namespace
}  // namespace kva
