// Quantized pages as device kernels read and write them, run on the host, against the codec.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "compressors/codecs/hadamard_codec.h"
#include "compressors/codecs/quant_codec.h"
#include "kernels/pack_lanes.h"
#include "tests/kernels/attention_on_host.h"
#include "tests/kernels/host_block.h"

namespace kva {
namespace {

std::vector<QuantFormat> formats() {
  std::vector<QuantFormat> all;
  for (const int bits : {8, 4, 3, 2})
    for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
      for (const int64_t group : {0, 5, 16})
        for (const bool symmetric : {false, true})
          for (const bool for_keys : {false, true})
            all.push_back(
                {.bits = bits, .axis = axis, .group = group, .symmetric = symmetric, .for_keys = for_keys});
  return all;
}

std::vector<float> random_rows(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> rows(static_cast<std::size_t>(count));
  for (float& x : rows) x = static_cast<float>(random() >> 8) / 1048576.0f - 8.0f;
  return rows;
}

struct CodedByLanes {
  std::vector<std::byte> payload;
  bool refused = false;
};
CodedByLanes coded_by_lanes(const SideFormat& format, const std::vector<float>& rows) {
  CodedByLanes coded{std::vector<std::byte>(static_cast<std::size_t>(format.bytes), std::byte{0xa5})};
  std::vector<double> scratch(static_cast<std::size_t>(pack_scratch({.format = format}).bytes / 8));
  const PackSide side{.source = reinterpret_cast<const std::byte*>(rows.data()),
                      .payload = coded.payload.data()};
  int32_t refused = 0;
  HostWarp warp;
  HostBlock team(warp);
  pack_side(team,
            {.format = format,
             .source_kind = SideKind::kF32,
             .sides = &side,
             .count = 1,
             .scratch = reinterpret_cast<std::byte*>(scratch.data()),
             .refused = &refused},
            0);
  coded.refused = refused != 0;
  return coded;
}

TEST(QuantSideFormat, LanesWriteTheCodecsBytes) {
  for (const QuantFormat& format : formats())
    for (const int64_t tokens : {1, 15, 16, 17, 64})
      for (const int64_t width : {8, 64, 80}) {
        std::vector<float> rows = random_rows(tokens * width, static_cast<unsigned>(tokens + width));
        std::fill_n(rows.begin(), width, 0.0f);  // a token, or the start of each channel, without range
        for (std::size_t i = 1; i < rows.size(); i += 3) rows[i] = i % 2 ? 0.0f : -0.0f;
        const auto codec = make_quant_codec(format);
        std::vector<std::byte> payload(static_cast<std::size_t>(codec->bytes(tokens, width)));
        codec->encode({rows.data(), tokens, width}, {}, payload.data());
        const SideFormat side = codec->device_format(tokens, width).value();
        ASSERT_EQ(side.bytes, codec->bytes(tokens, width));
        const CodedByLanes coded = coded_by_lanes(side, rows);
        ASSERT_EQ(coded.payload, payload) << format.bits << " bits, " << tokens << " tokens, width " << width;
        ASSERT_FALSE(coded.refused);
      }
}

// Kept numbers too, in Hadamard coordinates and out of them: distances that are equal, ranges that are,
// groups of which all is kept.
TEST(QuantSideFormat, LanesKeepTheCodecsNumbers) {
  for (QuantFormat format : formats())
    for (const int64_t tokens : {1, 17, 33})
      for (const bool turned : {false, true}) {
        const int64_t width = 32;
        format.outliers = tokens == 33 ? 0.3 : 0.02;
        format.dense_channels = format.bits % 4;
        std::vector<float> rows = random_rows(tokens * width, static_cast<unsigned>(tokens));
        for (std::size_t i = 1; i < rows.size(); i += 3) rows[i] = i % 2 ? 0.0f : 3.0f;
        std::shared_ptr<const SideCodec> codec = make_quant_codec(format);
        if (turned) codec = make_hadamard_codec(codec);
        std::vector<std::byte> payload(static_cast<std::size_t>(codec->bytes(tokens, width)));
        codec->encode({rows.data(), tokens, width}, {}, payload.data());
        const CodedByLanes coded = coded_by_lanes(codec->device_format(tokens, width).value(), rows);
        ASSERT_EQ(coded.payload, payload) << codec->name() << ", " << tokens << " tokens";
      }
}

TEST(QuantSideFormat, LanesKeepTheTokensLengths) {
  for (QuantFormat format : formats()) {
    const int64_t tokens = 17, width = 32;
    format.norm_correct = true;
    format.outliers = format.bits == 2 ? 0.05 : 0.0;
    const std::vector<float> rows = random_rows(tokens * width, 4);
    const auto codec = make_quant_codec(format);
    std::vector<std::byte> payload(static_cast<std::size_t>(codec->bytes(tokens, width)));
    codec->encode({rows.data(), tokens, width}, {}, payload.data());
    const SideFormat side = codec->device_format(tokens, width).value();
    CodedByLanes coded = coded_by_lanes(side, rows);
    for (int32_t t = 0; t < tokens; ++t) {
      uint16_t* found = reinterpret_cast<uint16_t*>(coded.payload.data() + side.factors_at) + t;
      const uint16_t expected = reinterpret_cast<const uint16_t*>(payload.data() + side.factors_at)[t];
      ASSERT_NEAR(*found, expected, 1);  // codes are decoded with other roundings
      *found = expected;
    }
    ASSERT_EQ(coded.payload, payload) << codec->name();
  }
}

TEST(QuantSideFormat, LanesRefuseWhatTheCodecRefuses) {
  const SideFormat side = make_quant_codec({.bits = 4, .outliers = 0.1})->device_format(4, 16).value();
  for (const float bad : {NAN, INFINITY, -INFINITY, 65536.0f}) {
    std::vector<float> rows(64, 1.0f);
    rows[37] = bad;
    EXPECT_TRUE(coded_by_lanes(side, rows).refused) << bad;
  }
  EXPECT_FALSE(coded_by_lanes(side, std::vector<float>(64, -65504.0f)).refused);
}

// Rows of several pages, moved together.
TEST(QuantSideFormat, LanesGatherTokens) {
  const auto codec = make_quant_codec({.bits = 4, .axis = ScaleAxis::kChannel});
  const int64_t tokens = 9, width = 24;
  const std::vector<float> rows = random_rows(3 * tokens * width, 6);
  std::vector<float> picked;
  std::vector<const std::byte*> places;
  for (int64_t t = 0; t < tokens; ++t) {
    const float* row = rows.data() + (3 * t + t % 3) * width;
    picked.insert(picked.end(), row, row + width);
    places.push_back(reinterpret_cast<const std::byte*>(row));
  }
  const SideFormat packed = codec->device_format(tokens, width).value();
  const SideFormat dense = make_dense_codec(DType::kF32)->device_format(tokens, width).value();
  const std::vector<std::byte> expected = coded_by_lanes(packed, picked).payload;
  std::vector<std::byte> found(expected.size());
  std::vector<float> moved(picked.size());
  HostWarp warp;
  HostBlock team(warp);
  int32_t refused = 0;
  const PackSide sides[] = {{.rows = places.data(), .payload = found.data()},
                            {.rows = places.data(), .payload = reinterpret_cast<std::byte*>(moved.data())}};
  pack_side(
      team,
      {.format = packed, .source_kind = SideKind::kF32, .sides = sides, .count = 1, .refused = &refused}, 0);
  pack_side(team,
            {.format = dense,
             .source_kind = SideKind::kF32,
             .tokens = tokens,
             .sides = sides,
             .count = 2,
             .refused = &refused},
            1);
  EXPECT_EQ(found, expected);
  EXPECT_EQ(moved, picked);
}

// A page of the codec's own, keys and values, with all that may be kept beside the codes.
TEST(QuantSideFormat, LanesAttendToTheCodecsPages) {
  std::vector<QuantFormat> all = formats();
  for (QuantFormat format : formats()) {
    format.outliers = 0.03;
    format.dense_channels = 2;
    format.norm_correct = true;
    all.push_back(format);
  }
  for (const QuantFormat& format : all)
    for (const int64_t tokens : {1, 17, 64}) {
      AttentionCase c;
      c.head_dim = 80;
      for (std::vector<HostSide>* sides : {&c.keys, &c.values}) {
        QuantFormat of_side = format;
        if (sides == &c.values) of_side.for_keys = false;
        const auto codec = make_quant_codec(of_side);
        const std::vector<float> rows = random_rows(tokens * c.head_dim, 3);
        HostSide side{codec->device_format(tokens, c.head_dim).value(),
                      std::vector<std::byte>(static_cast<std::size_t>(codec->bytes(tokens, c.head_dim))),
                      std::vector<float>(rows.size())};
        codec->encode({rows.data(), tokens, c.head_dim}, {}, side.payload.data());
        std::vector<float> scratch(static_cast<std::size_t>(codec->decode_scratch(tokens, c.head_dim)));
        codec->decode({.payload = side.payload.data()}, scratch.data(),
                      {side.numbers.data(), tokens, c.head_dim});
        sides->push_back(side);
        c.formats.push_back(side.format);
      }
      c.biases.emplace_back();
      c.pages = {{.tokens = static_cast<int32_t>(tokens), .key_format = 0, .value_format = 1}};
      c.tables = {{.page_count = 1, .position = static_cast<int32_t>(tokens)}};
      c.queries = c.draw_rows(c.head_dim);
      expect_attention(c, {}, "a page of the codec's");
    }
}

// What codecs write is what the fast kernels write, and read in steps of decoding.
TEST(QuantSideFormat, CommonPagesTakeTheFastWays) {
  for (const int64_t width : {64, 128})
    for (const int64_t tokens : {16, 64})
      for (const int bits : {8, 4, 3, 2})
        for (const ScaleAxis key_axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
          for (const double outliers : {0.0, 0.01}) {
            const auto side = [&](ScaleAxis axis, bool for_keys) {
              return make_quant_codec(
                         {.bits = bits, .axis = axis, .outliers = outliers, .for_keys = for_keys})
                  ->device_format(tokens, width)
                  .value();
            };
            const SideFormat keys = side(key_axis, true), values = side(ScaleAxis::kToken, false);
            const std::string what = std::to_string(bits) + " bits, " + std::to_string(tokens) +
                                     " tokens of " + std::to_string(width) + ", " + std::to_string(outliers);
            EXPECT_EQ(narrow_kind(keys, values), outliers > 0.0 ? NarrowKind::kKept : NarrowKind::kBare)
                << what;
            for (const SideFormat& of : {keys, values})
              EXPECT_TRUE(packs_bare({.format = of, .source_kind = SideKind::kF16})) << what;
          }
}

}  // namespace
}  // namespace kva
