// Pages of codebooks, and of several parts, as device kernels read them, run on the host, against the codec.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "compressors/codecs/codebook_codec.h"
#include "compressors/codecs/front_dense_codec.h"
#include "compressors/codecs/hadamard_codec.h"
#include "compressors/codecs/minicache_codec.h"
#include "compressors/codecs/pq_codec.h"
#include "compressors/codecs/quant_codec.h"
#include "compressors/codecs/residual_codec.h"
#include "tests/kernels/attention_on_host.h"

namespace kva {
namespace {

using Codec = std::shared_ptr<const SideCodec>;

std::vector<float> random_rows(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> rows(static_cast<std::size_t>(count));
  for (float& x : rows) x = static_cast<float>(random() >> 8) / 1048576.0f - 8.0f;
  return rows;
}

// What the codec makes of rows, with the addresses of what it shares on the host.
HostSide side_of(const SideCodec& codec, const std::vector<float>& rows, int64_t width) {
  const int64_t tokens = static_cast<int64_t>(rows.size()) / width;
  HostSide side{codec.device_format(tokens, width).value(),
                std::vector<std::byte>(static_cast<std::size_t>(codec.bytes(tokens, width))),
                std::vector<float>(rows.size())};
  const DeviceArrays arrays = codec.device_arrays();
  for (std::size_t i = 0; i < arrays.size(); ++i)
    if (arrays[i]) side.format.shared[i] = arrays[i]->data();
  EXPECT_EQ(side_bytes(side.format, tokens), codec.bytes(tokens, width));
  codec.encode({rows.data(), tokens, width}, {}, side.payload.data());
  std::vector<float> scratch(static_cast<std::size_t>(codec.decode_scratch(tokens, width)));
  codec.decode({.payload = side.payload.data()}, scratch.data(), {side.numbers.data(), tokens, width});
  return side;
}

// One page of the codecs' own, read by `group` query heads.
void expect_reads(const Codec& keys, const Codec& values, int64_t tokens, int64_t width, int32_t group,
                  const std::string& what) {
  AttentionCase c;
  c.head_dim = width;
  c.group = group;
  c.keys.push_back(side_of(*keys, random_rows(tokens * width, 3), width));
  c.values.push_back(side_of(*values, random_rows(tokens * width, 4), width));
  c.formats = {c.keys[0].format, c.values[0].format};
  c.biases.emplace_back();
  c.pages = {{.tokens = static_cast<int32_t>(tokens), .key_format = 0, .value_format = 1}};
  c.tables = {{.page_count = 1, .position = static_cast<int32_t>(tokens)}};
  c.queries = c.draw_rows(c.query_stride());
  expect_attention(c, {.group = group},
                   what + ", " + std::to_string(tokens) + " tokens of " + std::to_string(width) + ", " +
                       std::to_string(group) + " heads");
}

void expect_reads(const Codec& keys, const Codec& values, const std::string& what) {
  for (const int64_t tokens : {1, 15, 16, 17, 64})
    for (const int64_t width : {64, 80, 128})
      for (const int32_t group : {1, 9}) expect_reads(keys, values, tokens, width, group, what);
}

class SideFormats : public testing::Test {
 protected:
  Codec codebook(CodebookFormat format) const {
    std::vector<float> levels;
    for (int i = 0; i < format.levels(); ++i) {
      const float even = 2.0f * static_cast<float>(i) / static_cast<float>(format.levels() - 1) - 1.0f;
      levels.push_back(even * std::abs(even));
    }
    return make_codebook_codec(
        format, std::make_shared<const SideArray>(make_f16_array(memory, levels, "a codebook")));
  }
  std::shared_ptr<SideMemory> memory = std::make_shared<SideMemory>(make_cpu_backend());
};

TEST_F(SideFormats, LanesLookLevelsUp) {
  for (const int bits : {8, 4, 3, 2})
    for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
      for (const double outliers : {0.0, 0.03}) {
        const CodebookFormat values{.bits = bits, .axis = axis, .outliers = outliers};
        CodebookFormat keys = values;
        keys.for_keys = true;
        expect_reads(codebook(keys), codebook(values), std::to_string(bits) + " bits");
      }
}

TEST_F(SideFormats, LevelsOfATokensLength) {
  for (const int bits : {8, 4, 3, 2}) {
    CodebookFormat format{.bits = bits, .scaling = CodebookFormat::Scaling::kLength};
    const Codec values = codebook(format);
    format.for_keys = true;
    expect_reads(codebook(format), values, std::to_string(bits) + " bits");
  }
}

// Pages of one kind and of codebooks of their own in one item.
TEST_F(SideFormats, EveryPageHasItsOwnLevels) {
  AttentionCase c;
  std::vector<Codec> codecs;  // which keep their levels
  for (int page = 0; page < 4; ++page) {
    CodebookFormat format{
        .bits = 4, .scaling = page % 2 ? CodebookFormat::Scaling::kLength : CodebookFormat::Scaling::kRange};
    const Codec codec = codebook(format);
    for (std::vector<HostSide>* sides : {&c.keys, &c.values}) {
      sides->push_back(
          side_of(*codec, random_rows(16 * c.head_dim, static_cast<unsigned>(page)), c.head_dim));
      c.formats.push_back(sides->back().format);
    }
    codecs.push_back(codec);
    c.biases.emplace_back();
    const auto at = static_cast<uint16_t>(2 * page);
    c.pages.push_back(
        {.tokens = 16, .start = 16 * page, .key_format = at, .value_format = static_cast<uint16_t>(at + 1)});
  }
  c.tables = {{.page_count = 4, .position = 64}};
  c.queries = c.draw_rows(c.query_stride());
  expect_attention(c, {}, "four codebooks");
}

QuantFormat quantized(int bits, bool for_keys) {
  return {.bits = bits,
          .axis = for_keys ? ScaleAxis::kChannel : ScaleAxis::kToken,
          .outliers = 0.03,
          .for_keys = for_keys};
}

// Both sides split, alike or elsewhere, or one of them.
TEST_F(SideFormats, TokensInFrontAreF16) {
  for (const int bits : {8, 4, 3, 2}) {
    const Codec keys = make_quant_codec(quantized(bits, true)),
                values = make_quant_codec(quantized(bits, false));
    expect_reads(make_front_dense_codec(4, keys), make_front_dense_codec(4, values), "four in front");
    expect_reads(make_front_dense_codec(1, keys), make_front_dense_codec(14, values), "one and fourteen");
    expect_reads(make_front_dense_codec(3, keys), values, "in keys");
    expect_reads(keys, make_front_dense_codec(15, values), "in values");
  }
  QuantFormat kept = quantized(4, false);
  kept.dense_channels = 2;
  kept.norm_correct = true;
  const Codec all = make_quant_codec(kept);
  expect_reads(make_front_dense_codec(5, all), make_front_dense_codec(5, all), "with factors");
}

TEST_F(SideFormats, LowRankPartsAreAdded) {
  const auto with_rank = [](int64_t rank, int bits, bool for_keys) {
    return make_residual_codec(rank, make_quant_codec(quantized(bits, for_keys)));
  };
  expect_reads(with_rank(2, 4, true), with_rank(2, 4, false), "rank 2");
  for (const int bits : {8, 3, 2})
    for (const int64_t tokens : {1, 17})
      for (const int64_t rank : {1, 7})
        expect_reads(with_rank(rank, bits, true), with_rank(rank, bits, false), tokens, 80, 3,
                     "rank " + std::to_string(rank));
  const Codec plain = make_quant_codec(quantized(4, false));
  expect_reads(with_rank(64, 4, true), plain, 33, 64, 2, "rank 64, in keys");
  expect_reads(plain, with_rank(3, 4, false), 33, 64, 2, "in values");
}

// Parts of fewer numbers than a lane takes, of as many and of more; tables that fit the shared memory and
// such that do not.
TEST_F(SideFormats, LanesReadCentroids) {
  for (const int64_t width : {64, 80, 128})
    for (const int64_t m : {int64_t{1}, int64_t{4}, int64_t{16}, width})
      for (const int bits : {2, 3, 4, 8}) {
        const PqShape shape{.width = width, .m = m, .bits = bits};
        const std::vector<float> numbers = random_rows(width * shape.entries(), 9);
        const Codec codec = make_pq_codec(shape, make_f16_array(memory, numbers, "centroids"));
        for (const int64_t tokens : {1, 15, 16, 17})
          for (const int32_t group : {1, 9})
            expect_reads(codec, codec, tokens, width, group,
                         std::to_string(m) + " parts of " + std::to_string(bits) + " bits");
      }
}

// What kernels have no code for has no format.
TEST_F(SideFormats, PartsOfPartsAreRefused) {
  const Codec codes = make_quant_codec(quantized(4, false));
  EXPECT_FALSE(make_front_dense_codec(2, make_residual_codec(2, codes))->device_format(16, 64));
  EXPECT_FALSE(make_residual_codec(2, make_front_dense_codec(2, codes))->device_format(16, 64));
  EXPECT_FALSE(make_residual_codec(2, make_dense_codec(DType::kF16))->device_format(16, 64));
  // Nothing but the front is a dense page.
  EXPECT_EQ(make_front_dense_codec(16, codes)->device_format(16, 64),
            make_dense_codec(DType::kF16)->device_format(16, 64));
  EXPECT_FALSE(make_minicache_codec(0.0)->device_format_on(
      *make_front_dense_codec(2, codes)->device_format(16, 64), 16, 64));
  EXPECT_TRUE(make_hadamard_codec(make_front_dense_codec(2, codes))->device_format(16, 64)->hadamard);
}

}  // namespace
}  // namespace kva
