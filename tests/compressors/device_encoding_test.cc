// Pages that are coded where they lie, in a device's memory: the codec's own bytes, and nothing comes to the
// host for it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "compressors/codecs/fp8_codec.h"
#include "compressors/codecs/hadamard_codec.h"
#include "compressors/codecs/quant_codec.h"
#include "tests/compressors/compressed_cache.h"
#include "tests/error_of.h"
#include "tests/runtime/kv/device_under_test.h"
#include "tests/runtime/kv/rewriting.h"

namespace kva {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class DeviceEncoding : public testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    if (!device) GTEST_SKIP() << "no device";
    shape.type = GetParam();
    options = shape.options();
    options.backend = make_device_backend(device);
  }

  // Rows of a page's tokens, as the cache has them.
  std::vector<float> rows(const KvCache& cache, const PageAddress& at) const {
    std::vector<float> found(static_cast<std::size_t>(cache.page(at).tokens * shape.head_dim));
    cache.read_page(at.sequence, at.layer, at.kv_head, at.page, at.side,
                    MatView<float>(found.data(), cache.page(at).tokens, shape.head_dim));
    return found;
  }
  std::vector<std::byte> encoded(const SideCodec& codec, const std::vector<float>& numbers) const {
    const int64_t tokens = std::ssize(numbers) / shape.head_dim;
    std::vector<std::byte> payload(static_cast<std::size_t>(codec.bytes(tokens, shape.head_dim)));
    codec.encode({numbers.data(), tokens, shape.head_dim}, {}, payload.data());
    return payload;
  }

  // The page of 8 tokens at `at` is to be coded from these.
  void add_coding(Plan& plan, const PageAddress& at, std::shared_ptr<const SideCodec> codec,
                  const std::vector<SideTokens>& sources) const {
    plan.edits.push_back({.at = at, .new_side = static_cast<int>(plan.sides.size())});
    plan.sides.push_back({.codec = std::move(codec),
                          .lane = at.side == Side::kKey ? Lane::kKeys : Lane::kValues,
                          .tokens = 8,
                          .width = shape.head_dim,
                          .sources = sources});
  }

  std::shared_ptr<DeviceOps> device = device_under_test();
  ThreadPool pool{2};
  CacheShape shape{.layers = 1, .group = 1, .head_dim = 16, .page_tokens = 8};
  KvCacheOptions options;
};

TEST_P(DeviceEncoding, WritesTheCodecsBytes) {
  const std::vector<QuantFormat> formats = {
      {.bits = 8},
      {.bits = 4, .axis = ScaleAxis::kChannel, .outliers = 0.05},
      {.bits = 3, .group = 5, .symmetric = true, .dense_channels = 2},
      {.bits = 2, .outliers = 0.1},
  };
  const Projections source(shape, 21, 3);
  for (QuantFormat format : formats) {
    std::shared_ptr<const SideCodec> codecs[2];
    for (const Side side : {Side::kKey, Side::kValue}) {
      format.for_keys = side == Side::kKey;
      std::shared_ptr<const SideCodec>& codec = codecs[format.for_keys ? 0 : 1];
      codec = make_quant_codec(format);
      if (format.bits == 2) codec = make_hadamard_codec(codec);
    }
    CacheDriver driver(options, shape, pool);
    KvCache& cache = driver.cache;
    const SequenceId id = driver.add(source);
    driver.step({{id, 20}});
    Plan plan;
    std::vector<std::vector<std::byte>> expected;
    for (int64_t page = 0; page < 2; ++page)
      for (const Side side : {Side::kKey, Side::kValue}) {
        const PageAddress at{id, 0, 1, page, side};
        const auto& codec = codecs[side == Side::kKey ? 0 : 1];
        const std::vector<SideTokens> sources = {{cache.page(at).side, 0, 8}};
        ASSERT_TRUE(cache.codes_itself(*codec, sources));
        expected.push_back(encoded(*codec, rows(cache, at)));
        add_coding(plan, at, codec, sources);
      }
    const int64_t predicted = cache.predicted_bytes(plan);
    const ByteLedger before = cache.ledger();
    cache.apply(plan);
    const ByteLedger after = cache.ledger();
    EXPECT_EQ(after.payload + after.scales - before.payload - before.scales, predicted);
    EXPECT_EQ(after.held() + after.workspace - after.beside, cache.backend().allocated_bytes());
    for (std::size_t i = 0; i < expected.size(); ++i)
      EXPECT_TRUE(cache.holds(cache.page(plan.edits[i].at).side, *plan.sides[i].codec, expected[i]))
          << plan.sides[i].codec->name();
    // Codes are a source, too, but turned ones.
    const std::vector<SideTokens> of_codes = {{cache.page(plan.edits[0].at).side, 0, 8}};
    EXPECT_EQ(cache.codes_itself(*codecs[0], of_codes), format.bits != 2);
    driver.step({{id, 1}});
  }
}

// Tokens 1, 2 and 7 of one page and 0 and 4 of the next become a page, as they are and in codes.
TEST_P(DeviceEncoding, GathersTokens) {
  const Projections source(shape, 21, 4);
  const std::vector<int32_t> positions = {1, 2, 7, 8, 12};
  for (const bool coded : {false, true}) {
    CacheDriver driver(options, shape, pool);
    KvCache& cache = driver.cache;
    const SequenceId id = driver.add(source);
    driver.step({{id, 20}});
    Plan plan;
    add_rewrite(plan, cache, {id, 0, 0}, 0, 2, positions);
    std::vector<std::vector<std::byte>> expected;
    for (NewSide& side : plan.sides) {
      const Side which = side.lane == Lane::kKeys ? Side::kKey : Side::kValue;
      const SideId first = cache.page({id, 0, 0, 0, which}).side,
                   second = cache.page({id, 0, 0, 1, which}).side;
      if (coded) {
        std::vector<float> numbers(side.payload.size() * 8 /
                                   static_cast<std::size_t>(8 * dtype_bytes(shape.type)));
        to_f32(side.payload.data(), shape.type, numbers.data(), std::ssize(numbers));
        side.codec = make_quant_codec({.bits = 4, .outliers = 0.1});
        side.payload = encoded(*side.codec, numbers);
      }
      expected.push_back(std::move(side.payload));
      side.payload.clear();
      side.sources = {{first, 1, 2}, {first, 7, 1}, {second, 0, 1}, {second, 4, 1}};
      ASSERT_TRUE(cache.codes_itself(*side.codec, side.sources));
    }
    cache.apply(plan);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const PageFacts facts = cache.page({id, 0, 0, 0, i == 0 ? Side::kKey : Side::kValue});
      EXPECT_EQ(facts.positions, positions);
      EXPECT_TRUE(cache.holds(facts.side, *plan.sides[i].codec, expected[i])) << "side " << i;
    }
  }
}

// The same tokens of pages that are coded already.
TEST_P(DeviceEncoding, GathersTokensOfCodes) {
  const Projections source(shape, 21, 6);
  const std::vector<int32_t> positions = {1, 2, 7, 8, 12};
  for (const auto& codec : {make_quant_codec({.bits = 8}), make_quant_codec({.bits = 4, .outliers = 0.1}),
                            make_quant_codec({.bits = 3, .axis = ScaleAxis::kChannel, .outliers = 0.05}),
                            make_quant_codec({.bits = 2, .group = 5, .symmetric = true, .dense_channels = 2}),
                            make_fp8_codec(Fp8::kE4M3)}) {
    CacheDriver driver(options, shape, pool);
    KvCache& cache = driver.cache;
    const SequenceId id = driver.add(source);
    driver.step({{id, 20}});
    Plan codes;
    for (int64_t page = 0; page < 2; ++page)
      for (const Side side : {Side::kKey, Side::kValue}) {
        const PageAddress at{id, 0, 0, page, side};
        add_coding(codes, at, codec, {{cache.page(at).side, 0, 8}});
      }
    cache.apply(codes);
    Plan plan;
    add_rewrite(plan, cache, {id, 0, 0}, 0, 2, positions);
    std::vector<std::vector<std::byte>> expected;
    for (NewSide& side : plan.sides) {
      const Side which = side.lane == Lane::kKeys ? Side::kKey : Side::kValue;
      std::vector<float> numbers;
      for (const int32_t position : positions) {
        const std::vector<float> of_page = rows(cache, {id, 0, 0, position / 8, which});
        const auto row = of_page.begin() + position % 8 * shape.head_dim;
        numbers.insert(numbers.end(), row, row + shape.head_dim);
      }
      expected.push_back(encoded(*codec, numbers));
      const SideId first = cache.page({id, 0, 0, 0, which}).side,
                   second = cache.page({id, 0, 0, 1, which}).side;
      side.codec = codec;
      side.payload.clear();
      side.sources = {{first, 1, 2}, {first, 7, 1}, {second, 0, 1}, {second, 4, 1}};
      ASSERT_TRUE(cache.codes_itself(*side.codec, side.sources)) << codec->name();
    }
    cache.apply(plan);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const PageFacts facts = cache.page({id, 0, 0, 0, i == 0 ? Side::kKey : Side::kValue});
      EXPECT_EQ(facts.positions, positions);
      EXPECT_TRUE(cache.holds(facts.side, *codec, expected[i])) << codec->name() << ", side " << i;
    }
    EXPECT_EQ(cache.ledger().held() + cache.ledger().workspace - cache.ledger().beside,
              cache.backend().allocated_bytes());
  }
}

INSTANTIATE_TEST_SUITE_P(Types, DeviceEncoding, testing::Values(DType::kF32, DType::kF16, DType::kBF16),
                         [](const auto& type) { return std::string(dtype_name(type.param)); });

using DeviceEncodingOfF32 = DeviceEncoding;

TEST_P(DeviceEncodingOfF32, RefusesInTheCodecsWords) {
  Projections source(shape, 21, 5);
  source.v[static_cast<std::size_t>(11 * shape.kv_heads * shape.head_dim + shape.head_dim + 3)] = 1e6f;
  CacheDriver driver(options, shape, pool);
  KvCache& cache = driver.cache;
  const SequenceId id = driver.add(source);
  driver.step({{id, 20}});
  const auto codec = make_quant_codec({.bits = 4});
  Plan plan;
  for (int64_t page = 0; page < 2; ++page) {
    const PageAddress at{id, 0, 1, page, Side::kValue};
    plan.edits.push_back({.at = at, .new_side = static_cast<int>(page)});
    plan.sides.push_back({.codec = codec,
                          .lane = Lane::kValues,
                          .tokens = 8,
                          .width = shape.head_dim,
                          .sources = {{cache.page(at).side, 0, 8}}});
  }
  const int64_t held = cache.ledger().payload;
  const std::string expected = error_of([&] { encoded(*codec, rows(cache, plan.edits[1].at)); });
  EXPECT_EQ(error_of([&] { cache.apply(plan); }),
            "layer 0, KV head 1, V of the page at position 8: " + expected);
  EXPECT_EQ(cache.ledger().payload, held);
  EXPECT_EQ(cache.page(plan.edits[0].at).codec, "dense(f32)");
  driver.step({{id, 1}});
}

INSTANTIATE_TEST_SUITE_P(Types, DeviceEncodingOfF32, testing::Values(DType::kF32));

}  // namespace
}  // namespace kva
