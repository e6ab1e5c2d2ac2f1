#include "compressors/codecs/quant_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "compressors/codecs/front_dense_codec.h"
#include "compressors/codecs/hadamard_codec.h"
#include "kernels/dtype.h"
#include "tests/compressors/format_conformance.h"
#include "tests/compressors/random_sample.h"
#include "tests/error_of.h"

namespace kva {
namespace {

using enum ScaleAxis;

std::vector<float> coded(const SideCodec& codec, const std::vector<float>& values, int64_t width) {
  const int64_t tokens = static_cast<int64_t>(values.size()) / width;
  return decoded(codec, encoded(codec, values, tokens, width), tokens, width);
}

// Both layouts hold the same numbers.
std::vector<float> coded(QuantFormat format, const std::vector<float>& values, int64_t width) {
  const std::vector<float> read = coded(*make_quant_codec(format), values, width);
  format.for_keys = true;
  EXPECT_EQ(coded(*make_quant_codec(format), values, width), read);
  return read;
}

// KIVI's axes at 2 bits. Per channel: 0 to 18 has steps of 6, so 3 lies between two and goes to the even one;
// -3 to 3 has steps of 2, so 0, between -1 and 1, goes to the even code 2. Per token, or in groups of two
// tokens, each pair is its two ends.
TEST(QuantCodec, KiviAxesByHand) {
  const std::vector<float> page = {0, -3, 3, 0, 6, 3, 18, 3};
  EXPECT_EQ(coded({.bits = 2, .axis = kChannel}, page, 2), (std::vector<float>{0, -3, 0, 1, 6, 3, 18, 3}));
  EXPECT_EQ(coded({.bits = 2, .axis = kToken}, page, 2), page);
  EXPECT_EQ(coded({.bits = 2, .axis = kChannel, .group = 2}, page, 2), page);
  // The smallest f16 over 1/3 is 0x1.558p-2.
  EXPECT_EQ(coded({.bits = 2}, {0, 1}, 2), (std::vector<float>{0, 3 * 0x1.558p-2f}));
}

// ZeroQuant: a token's range at 8 bits. 0 to 255 has steps of 1; 2.5 lies between and goes to the even code.
TEST(QuantCodec, ZeroQuantPerTokenByHand) {
  EXPECT_EQ(coded({.bits = 8}, {0, 2.4f, 2.5f, 255, -10, -10, 245, 0.6f}, 4),
            (std::vector<float>{0, 2, 2, 255, -10, -10, 245, 1}));
}

// Symmetric at 4 bits: 7 steps to each side of 0. At 2 bits: -1, 0, 1 times the largest; three levels.
TEST(QuantCodec, SymmetricByHand) {
  EXPECT_EQ(coded({.bits = 4, .symmetric = true}, {-7, 3.4f, 0.4f, -0.6f}, 4),
            (std::vector<float>{-7, 3, 0, -1}));
  EXPECT_EQ(coded({.bits = 2, .symmetric = true}, {-4, 3, 1, -1.9f}, 4), (std::vector<float>{-4, 4, 0, 0}));
}

TEST(QuantCodec, GroupsOfATokenByHand) {
  EXPECT_EQ(coded({.bits = 2, .group = 3}, {0, 1, 3, 10, 20, 40, 100}, 7),
            (std::vector<float>{0, 1, 3, 10, 20, 40, 100}));
}

// One outlier of 8 numbers, the farthest from its channel's mean. Without it that channel, 0 1 3, is exact at
// 2 bits; 100.03 comes back as f16 has it.
TEST(QuantCodec, OutlierByHand) {
  const std::vector<float> page = {0, 5, 100.03f, 6, 1, 7, 3, 8};
  const float kept = f32_from_f16(f16_from_f32(100.03f));
  EXPECT_EQ(coded({.bits = 2, .axis = kChannel, .outliers = 0.125}, page, 2),
            (std::vector<float>{0, 5, kept, 6, 1, 7, 3, 8}));
  EXPECT_GT(std::abs(coded({.bits = 2, .axis = kChannel}, page, 2)[6] - 3.0f), 2.9f);
}

// Three channels, two tokens; the middle one has the largest range. The others are ends of pairs.
TEST(QuantCodec, DenseChannelByHand) {
  const std::vector<float> page = {0, 100, 3, 3, -41.5f, 0};
  EXPECT_EQ(coded({.bits = 2, .dense_channels = 1}, page, 3), page);
}

// Symmetric at 2 bits, (4, 3, 0, 0) is coded as (4, 4, 0, 0), of length 5.66 instead of 5.
TEST(QuantCodec, NormCorrectionByHand) {
  const float factor = f32_from_f16(f16_from_f32(5.0f / std::sqrt(32.0f)));
  EXPECT_EQ(coded({.bits = 2, .symmetric = true, .norm_correct = true}, {4, 3, 0, 0}, 4),
            (std::vector<float>{4 * factor, 4 * factor, 0, 0}));
}

TEST(QuantCodec, BytesByHand) {
  for (const bool for_keys : {false, true}) {
    const auto bytes = [&](QuantFormat format, int64_t tokens, int64_t width) {
      format.for_keys = for_keys;
      return make_quant_codec(format)->bytes(tokens, width);
    };
    const auto scales = [&](QuantFormat format, int64_t tokens, int64_t width) {
      format.for_keys = for_keys;
      return make_quant_codec(format)->scale_bytes(tokens, width);
    };
    // 64 x 64 at 4 bits, a scale and a zero for each channel.
    EXPECT_EQ(bytes({.axis = kChannel}, 64, 64), 2048 + 4 * 64);
    EXPECT_EQ(scales({.axis = kChannel}, 64, 64), 4 * 64);
    EXPECT_EQ(bytes({.axis = kChannel, .symmetric = true}, 64, 64), 2048 + 2 * 64);
    EXPECT_EQ(bytes({.axis = kChannel, .group = 32}, 64, 64), 2048 + 2 * 4 * 64);
    EXPECT_EQ(bytes({.group = 32}, 64, 64), 2048 + 2 * 4 * 64);
    // ceil(1% of 4096) = 41 outliers of 2 bytes, and places of 12 bits.
    EXPECT_EQ(scales({.axis = kChannel, .outliers = 0.01}, 64, 64), 4 * 64 + 2 * 41 + 62);
    // Two of 64 channels as f16 too, with their places.
    EXPECT_EQ(bytes({.dense_channels = 2}, 64, 64), 2048 + 4 * 64 + 2 * 2 + 2 * 2 * 64);
    EXPECT_EQ(bytes({.norm_correct = true}, 64, 64), 2048 + 4 * 64 + 2 * 64);
    EXPECT_EQ(bytes({.bits = 3}, 64, 64), 64 * 24 + 4 * 64);
    // The last group of 32 of 33 tokens has one; rows of 33 tokens would take a byte more each.
    EXPECT_EQ(bytes({.axis = kChannel, .group = 32}, 33, 64), 33 * 32 + 2 * 4 * 64);
    EXPECT_EQ(bytes({.axis = kChannel, .outliers = 0.5, .dense_channels = 3, .norm_correct = true}, 0, 64),
              0);
  }
}

// The recipe at 64-token pages: K and V within 4.9 bits a value.
TEST(QuantCodec, KiviWithOutliersTakesLessThanItsBits) {
  const auto keys = make_quant_codec({.axis = kChannel, .outliers = 0.01, .for_keys = true});
  const auto values = make_quant_codec({.axis = kToken, .outliers = 0.01});
  EXPECT_LT(8.0 * static_cast<double>(keys->bytes(64, 64) + values->bytes(64, 64)) / (2 * 64 * 64), 4.9);
}

struct Subject {
  std::string name;
  std::shared_ptr<const SideCodec> codec;
  bool any_width = true;
};

void PrintTo(const Subject& subject, std::ostream* out) { *out << subject.name; }

std::vector<Subject> subjects() {
  std::vector<Subject> result;
  for (const bool keys : {false, true}) {
    const std::string end = keys ? "_keys" : "";
    for (const int bits : {2, 3, 4, 8})
      for (const bool symmetric : {false, true})
        for (const ScaleAxis axis : {kToken, kChannel})
          for (const int64_t group : {0, 5, 32})
            result.push_back({"b" + std::to_string(bits) + (axis == kChannel ? "channel" : "token") +
                                  std::to_string(group) + (symmetric ? "sym" : "") + end,
                              make_quant_codec({.bits = bits,
                                                .axis = axis,
                                                .group = group,
                                                .symmetric = symmetric,
                                                .for_keys = keys})});
    const auto add = [&](const std::string& name, QuantFormat format) {
      format.for_keys = keys;
      result.push_back({name + end, make_quant_codec(format)});
    };
    add("outliers", {.axis = kChannel, .outliers = 0.01});
    add("many_outliers", {.group = 8, .symmetric = true, .outliers = 0.5});
    add("all_outliers", {.outliers = 1.0});
    add("dense", {.axis = kChannel, .dense_channels = 3});
    add("all_dense", {.dense_channels = 1000});
    add("norms", {.norm_correct = true});
    const QuantFormat all{.bits = 3,
                          .axis = kChannel,
                          .group = 32,
                          .outliers = 0.02,
                          .dense_channels = 2,
                          .norm_correct = true,
                          .for_keys = keys};
    add("everything", all);
    result.push_back({"front" + end, make_front_dense_codec(4, make_quant_codec(all))});
    result.push_back({"hadamard" + end, make_hadamard_codec(make_quant_codec(all)), false});
  }
  return result;
}

class QuantConformance : public testing::TestWithParam<Subject> {};

TEST_P(QuantConformance, InEveryShape) {
  for (const int64_t width : {4, 9, 64, 96}) {
    if (!GetParam().any_width && (width & (width - 1)) != 0) continue;
    expect_conforming(*GetParam().codec, width, 3);
  }
}

TEST_P(QuantConformance, RefusesNaNAndInfinityByPlace) {
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY, 1e9f}) {
    std::vector<float> values = normal_numbers(16 * 64, 5);
    values[9 * 64 + 7] = bad;
    std::vector<std::byte> payload(static_cast<std::size_t>(GetParam().codec->bytes(16, 64)));
    const std::string error = error_of([&] {
      GetParam().codec->encode({values.data(), 16, 64}, {}, payload.data());
    });
    EXPECT_NE(error.find("within f16"), std::string::npos) << error;
  }
}

// Whatever the bytes, nothing outside the page is read or written: the sanitizers see it, and the guards.
TEST_P(QuantConformance, DamagedBytesStayInTheirPage) {
  const SideCodec& codec = *GetParam().codec;
  std::mt19937 random(3);
  for (const int64_t tokens : {1, 17, 64}) {
    std::vector<std::byte> payload(static_cast<std::size_t>(codec.bytes(tokens, 64)));
    for (std::byte& byte : payload) byte = static_cast<std::byte>(random());
    payload.shrink_to_fit();
    decoded(codec, payload, tokens, 64);
    std::vector<float> scratch(static_cast<std::size_t>(codec.scratch_values(1, tokens, 64)));
    std::vector<float> ones(64, 1.0f), result(64);
    codec.scores({ones.data(), 1, 64}, {.payload = payload.data()}, scratch.data(),
                 {result.data(), 1, tokens});
    codec.accumulate({ones.data(), 1, tokens}, {.payload = payload.data()}, scratch.data(),
                     {result.data(), 1, 64});
  }
}

INSTANTIATE_TEST_SUITE_P(Codecs, QuantConformance, testing::ValuesIn(subjects()),
                         [](const auto& of) { return of.param.name; });

// What the rotation is for: one channel that stands out costs every number of a token its resolution.
TEST(HadamardCodec, SpreadsAChannelThatStandsOut) {
  std::vector<float> page = normal_numbers(64 * 64, 1);
  for (std::size_t i = 5; i < page.size(); i += 64) page[i] *= 30.0f;
  const auto squared_error = [&](const SideCodec& codec) {
    const std::vector<float> read = coded(codec, page, 64);
    double sum = 0.0;
    for (std::size_t i = 0; i < page.size(); ++i) sum += std::pow(double{read[i]} - page[i], 2);
    return sum;
  };
  const auto plain = make_quant_codec({.bits = 4});
  EXPECT_LT(squared_error(*make_hadamard_codec(plain)), 0.7 * squared_error(*plain));
}

}  // namespace
}  // namespace kva
