#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "compressors/codecs/hadamard_codec.h"
#include "compressors/codecs/quant_codec.h"
#include "compressors/codecs/zstd_codec.h"
#include "tests/compressors/compressed_cache.h"
#include "tests/compressors/format_conformance.h"

namespace kva {
namespace {

constexpr int64_t kTokens = 64;
constexpr int64_t kWidth = 64;

// Numbers of few different values, so that every format of them packs.
std::vector<float> plain_rows(int64_t tokens = kTokens) {
  std::vector<float> rows(static_cast<std::size_t>(tokens * kWidth));
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>((i * i / 7) % 13) - 6.0f;
  return rows;
}

TEST(Zstd, APayloadIsTheFrameWithItsLength) {
  const std::vector<std::byte> zeros(512);
  const ZstdPacked packed = ZstdCodecs(3).pack(zeros);
  ASSERT_EQ(packed.payload.size(), 64u);  // the smallest class
  EXPECT_EQ(packed.shape.bytes, 64);
  EXPECT_EQ(packed.shape.raw_bytes, 512);
  EXPECT_FALSE(packed.shape.planes);
  uint32_t length = 0, magic = 0;
  std::memcpy(&length, packed.payload.data(), 4);
  std::memcpy(&magic, packed.payload.data() + 4, 4);
  EXPECT_GT(length, 4u);
  EXPECT_LE(length, 60u);
  EXPECT_EQ(magic, 0xFD2FB528u);  // RFC 8878, 3.1.1
  for (std::size_t i = 4 + length; i < 64; ++i) EXPECT_EQ(packed.payload[i], std::byte{0});
}

TEST(Zstd, WhatDoesNotShrinkIsLeftAlone) {
  SplitMix64 random(1);
  std::vector<std::byte> noise(512);
  for (std::byte& byte : noise) byte = static_cast<std::byte>(random.next());
  EXPECT_TRUE(ZstdCodecs(19).pack(noise).payload.empty());
  EXPECT_TRUE(ZstdCodecs(3).pack(std::vector<std::byte>(64)).payload.empty());  // a class is no less
  EXPECT_TRUE(ZstdCodecs(3).pack({}).payload.empty());
}

TEST(Zstd, UpperHalvesOfNumbersPackApartFromTheLower) {
  // Noise below, equal bytes above.
  SplitMix64 random(2);
  std::vector<std::byte> numbers(1025);
  for (std::size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = i % 2 == 0 ? static_cast<std::byte>(random.next()) : std::byte{0x3c};
  const ZstdPacked packed = ZstdCodecs(3).pack(numbers);
  EXPECT_TRUE(packed.shape.planes);
  EXPECT_EQ(packed.payload.size(), 576u);  // 4 + 513 bytes of noise + a frame of under 56
  for (std::size_t i = 0; i < 513; ++i) ASSERT_EQ(packed.payload[4 + i], numbers[2 * i]);
}

TEST(Zstd, ReadsAsTheCodecInsideBitForBit) {
  int with_planes = 0, without_planes = 0;
  const std::shared_ptr<const SideCodec> inners[] = {
      make_dense_codec(DType::kF16), make_dense_codec(DType::kF32), make_quant_codec({.bits = 4}),
      make_quant_codec({.bits = 8, .outliers = 0.01}), make_hadamard_codec(make_quant_codec({.bits = 8}))};
  for (const auto& inner : inners)
    for (const auto& rows : {plain_rows(), normal_numbers(kTokens * kWidth, 9)}) {
      SCOPED_TRACE(inner->name());
      ZstdCodecs codecs(3);
      const auto raw = encoded(*inner, rows, kTokens, kWidth);
      const ZstdPacked frame = codecs.pack(raw);
      const auto& packed = frame.payload;
      if (packed.empty()) continue;
      with_planes += frame.shape.planes ? 1 : 0;
      const auto codec = codecs.codec(inner, frame.shape);
      EXPECT_EQ(codec->bytes(kTokens, kWidth), static_cast<int64_t>(packed.size()));
      EXPECT_EQ(decoded(*codec, packed, kTokens, kWidth), decoded(*inner, raw, kTokens, kWidth));
      EXPECT_TRUE(codec->accepts({.payload = packed.data()}, kTokens, kWidth));
      const int64_t n = 3;
      const std::vector<float> queries = normal_numbers(n * kWidth, 5),
                               weights = normal_numbers(n * kTokens, 6);
      const auto read = [&](const SideCodec& by, const std::vector<std::byte>& payload, int64_t shift) {
        std::vector<float> scratch(static_cast<std::size_t>(by.scratch_values(n, kTokens, kWidth) + shift));
        std::vector<float> out(static_cast<std::size_t>(n * (kTokens + kWidth)));
        by.scores(MatView<const float>(queries.data(), n, kWidth), {.payload = payload.data()},
                  scratch.data() + shift, MatView<float>(out.data(), n, kTokens));
        by.accumulate(MatView<const float>(weights.data(), n, kTokens), {.payload = payload.data()},
                      scratch.data() + shift, MatView<float>(out.data() + n * kTokens, n, kWidth));
        return out;
      };
      // Scratch is aligned to floats, zstd's state wants more.
      EXPECT_EQ(read(*codec, packed, 0), read(*inner, raw, 0));
      EXPECT_EQ(read(*codec, packed, 1), read(*inner, raw, 0));
      ++without_planes;
    }
  without_planes -= with_planes;
  EXPECT_GT(with_planes, 0);
  EXPECT_GT(without_planes, 4);
}

TEST(Zstd, DamagedFramesAreNotAccepted) {
  ZstdCodecs codecs(3);
  const auto inner = make_dense_codec(DType::kF16);
  const ZstdPacked packed = codecs.pack(encoded(*inner, plain_rows(), kTokens, kWidth));
  ASSERT_FALSE(packed.shape.planes);
  const auto codec = codecs.codec(inner, packed.shape);
  const auto accepts = [&](std::size_t at, uint8_t value) {
    auto damaged = packed.payload;
    damaged[at] = std::byte{value};
    return codec->accepts({.payload = damaged.data()}, kTokens, kWidth);
  };
  EXPECT_FALSE(accepts(3, 0xff));  // a length beyond the payload
  EXPECT_FALSE(accepts(0, 1));     // a frame cut short
  EXPECT_FALSE(accepts(4, 0));     // no frame
  EXPECT_TRUE(codec->accepts({.payload = packed.payload.data()}, kTokens, kWidth));
  EXPECT_FALSE(codec->accepts({.payload = packed.payload.data()}, kTokens - 1, kWidth));
}

TEST(Zstd, OneCodecForEachShape) {
  ZstdCodecs codecs(3);
  const auto inner = make_dense_codec(DType::kF16);
  const auto codec = codecs.codec(inner, {128, 512, false});
  EXPECT_EQ(codecs.codec(inner, {128, 512, false}), codec);
  EXPECT_NE(codecs.codec(inner, {192, 512, false}), codec);
  EXPECT_NE(codecs.codec(inner, {320, 512, true}), codecs.codec(inner, {320, 512, false}));
  EXPECT_NE(codecs.codec(make_dense_codec(DType::kF32), {128, 512, false}), codec);
}

// ---- In a cache -----------------------------------------------------------------------------------------

constexpr CacheShape kShape{.layers = 2, .kv_heads = 2, .group = 2, .head_dim = 64, .type = DType::kF16};

Projections plain_projections(int64_t tokens, unsigned seed) {
  Projections source(kShape, tokens, seed);
  for (float& value : source.k) value = std::round(0.7f * value);
  for (float& value : source.v) value = std::round(0.7f * value);
  return source;
}

TEST(Zstd, AttentionIsThatOfTheUnpackedPages) {
  ThreadPool pool(2);
  for (const char* format :
       {"dense(f16)", "quant(bits=8)", "quant(k=4,v=4,axes=kivi)", "minicache(start=0)"}) {
    SCOPED_TRACE(format);
    const Projections source = plain_projections(150, 3);
    const auto outputs = [&](const std::string& recipe, int64_t& payload) {
      CompressedCache c(recipe, pool, kShape);
      const SequenceId id = c.driver.add(source);
      c.feed(id, 130, 13);
      c.feed(id, 20, 1);
      const ByteLedger ledger = c.driver.cache.ledger();
      payload = ledger.payload + ledger.scales;
      return c.driver.output(id);
    };
    int64_t alone = 0, packed = 0;
    EXPECT_EQ(outputs(std::string(format) + " | zstd", packed), outputs(format, alone));
    EXPECT_LT(packed, alone);
  }
}

TEST(Zstd, PacksColdPagesOnly) {
  ThreadPool pool(1);
  CompressedCache c("dense(f16) | zstd(window=40)", pool, kShape);
  const Projections source = plain_projections(100, 4);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 100, 10);
  // Pages that end at 60 or before are older than the last 40 tokens.
  for (int64_t page = 0; page < 6; ++page)
    EXPECT_EQ(c.driver.cache.page({id, 1, 1, page, Side::kValue}).codec,
              page < 3 ? "zstd of dense(f16)" : "dense(f16)");
}

TEST(Zstd, ALaterTriggerPacksWhatIsStored) {
  ThreadPool pool(1);
  const Projections source = plain_projections(96, 5);
  const auto pages = [&](const char* recipe, const char* codec) {
    CompressedCache c(recipe, pool, kShape);
    const SequenceId id = c.driver.add(source);
    c.feed(id, 96, 16);
    c.compressor.end_prompt(id);
    EXPECT_EQ(c.driver.cache.page({id, 0, 0, 1, Side::kValue}).codec, codec);
    return c.page(id, 0, 0, 1, Side::kValue);
  };
  EXPECT_EQ(pages("quant(bits=4)@seal | zstd@prefill", "zstd of quant(bits=4, by token)"),
            pages("quant(bits=4)", "quant(bits=4, by token)"));
}

TEST(Zstd, SharedPagesStayShared) {
  ThreadPool pool(1);
  for (const char* recipe : {"dedup(exact) | zstd", "dedup(exact)@seal | zstd@prefill"}) {
    SCOPED_TRACE(recipe);
    CompressedCache c(recipe, pool, kShape);
    Projections source = plain_projections(64, 6);
    // The values of page 2 are those of page 0.
    std::copy_n(source.v.begin(), 16 * 128, source.v.begin() + 2 * 16 * 128);
    const SequenceId id = c.driver.add(source);
    c.feed(id, 64, 16);
    c.compressor.end_prompt(id);
    const PageFacts first = c.driver.cache.page({id, 1, 0, 0, Side::kValue});
    EXPECT_EQ(first.codec, "zstd of dense(f16)");
    EXPECT_EQ(c.driver.cache.page({id, 1, 0, 2, Side::kValue}).side, first.side);
    EXPECT_EQ(first.references, 2);
  }
}

}  // namespace
}  // namespace kva
