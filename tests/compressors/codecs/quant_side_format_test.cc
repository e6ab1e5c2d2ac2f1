// Quantized pages as device kernels read and write them, run on the host, against the codec.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "compressors/codecs/quant_codec.h"
#include "kernels/encode_lanes.h"
#include "tests/kernels/attention_on_host.h"

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

std::vector<std::byte> encoded_by_lanes(const SideFormat& format, const std::vector<float>& rows) {
  std::vector<std::byte> payload(static_cast<std::size_t>(format.bytes), std::byte{0xa5});
  const PackJob job{format, rows.data(), format.width, payload.data()};
  const int32_t scales = format.scale_by_token ? format.tokens * format.groups : format.width * format.groups;
  for (int32_t i = 0; i < scales; ++i) pack_scale(job, i);
  for (int32_t row = 0; row < packed_rows(format); ++row)
    for (int32_t lane = 0; lane < packed_lanes(format); ++lane) pack_lane(job, row, lane);
  return payload;
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
        ASSERT_EQ(encoded_by_lanes(side, rows), payload)
            << format.bits << " bits, " << tokens << " tokens, width " << width;
      }
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

}  // namespace
}  // namespace kva
