// Codebooks, centroids, dense fronts and shared directions, coded by the device's lanes: the codecs' bytes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "compressors/codecs/codebook_codec.h"
#include "compressors/codecs/fp8_codec.h"
#include "compressors/codecs/front_dense_codec.h"
#include "compressors/codecs/hadamard_codec.h"
#include "compressors/codecs/minicache_codec.h"
#include "compressors/codecs/pq_codec.h"
#include "compressors/codecs/quant_codec.h"
#include "compressors/codecs/rotation_codec.h"
#include "tests/compressors/codecs/coded_by_lanes.h"
#include "tests/error_of.h"

namespace kva {
namespace {

using Codec = std::shared_ptr<const SideCodec>;

constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
constexpr int64_t kTokens[] = {1, 15, 16, 17, 64};
constexpr int64_t kWidths[] = {64, 80, 128};

// Numbers of all sizes, equal ones, zeros of both signs, and a token without any.
std::vector<float> page_rows(int64_t tokens, int64_t width, unsigned seed) {
  std::vector<float> rows = normal_rows(tokens * width, seed);
  for (std::size_t i = 5; i < rows.size(); i += 17) rows[i] *= 30.0f;
  for (std::size_t i = 1; i < rows.size(); i += 7) rows[i] = i % 2 ? 0.5f : -0.0f;
  if (tokens > 2) std::fill_n(rows.begin() + width, width, 0.0f);
  return rows;
}

std::shared_ptr<const SideArray> shared_halves(const std::vector<float>& numbers) {
  static const auto memory = std::make_shared<SideMemory>(make_cpu_backend());
  return std::make_shared<const SideArray>(make_f16_array(memory, numbers, "a test's numbers"));
}

// Ascending, at unequal distances; two that are equal where there is room for them.
std::vector<float> levels(int bits) {
  std::vector<float> result;
  const int count = 1 << bits;
  for (int i = 0; i < count; ++i) {
    const double at = (2.0 * i + 1.0) / count - 1.0;
    result.push_back(static_cast<float>(at * std::abs(at) * 1.1));
  }
  if (bits > 2) result[2] = result[1];
  return result;
}

void expect_codes(const SideCodec& codec, int64_t tokens, int64_t width, DType type,
                  const std::string& what) {
  const OpenRows rows(page_rows(tokens, width, static_cast<unsigned>(tokens + width)), width, type);
  const CodedByLanes coded = coded_by_lanes(codec, rows);
  ASSERT_EQ(coded.payload, encoded_by(codec, rows.view()))
      << what << ", " << tokens << " tokens, width " << width << ", " << dtype_name(type);
  ASSERT_FALSE(coded.refused);
}

void expect_codes_everywhere(const std::function<Codec(int64_t width)>& make, const std::string& what) {
  for (const int64_t width : kWidths) {
    const Codec codec = make(width);
    ASSERT_TRUE(codec->device_codes()) << what;
    for (const int64_t tokens : kTokens)
      for (const DType type : kTypes) expect_codes(*codec, tokens, width, type, what);
  }
}

TEST(DeviceCodes, OfLevels) {
  for (const int bits : {8, 4, 3, 2})
    for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
      for (const bool for_keys : {false, true})
        for (const double outliers : {0.0, 0.05}) {
          const Codec codec = make_codebook_codec(
              {.name = "nuq", .bits = bits, .axis = axis, .for_keys = for_keys, .outliers = outliers},
              shared_halves(levels(bits)));
          expect_codes_everywhere([&](int64_t) { return codec; }, std::to_string(bits) + " bits");
        }
}

// On the very borders between two levels, which are numbers that can be: range 2 around 0.
TEST(DeviceCodes, OfNumbersBetweenLevels) {
  const Codec codec = make_codebook_codec({.name = "nuq", .bits = 2, .axis = ScaleAxis::kToken},
                                          shared_halves({-0.75f, -0.25f, 0.25f, 0.75f}));
  std::vector<float> numbers = {-1.0f, 1.0f, -0.5f, 0.5f, 0.0f, -0.0f, std::nextafter(0.5f, 1.0f), 0.25f};
  const OpenRows rows(numbers, 8, DType::kF32);
  EXPECT_EQ(coded_by_lanes(*codec, rows).payload, encoded_by(*codec, rows.view()));
}

TEST(DeviceCodes, OfTurnedTokens) {
  for (const int bits : {8, 4, 3, 2})
    expect_codes_everywhere(
        [&](int64_t width) {
          const Codec inner = make_codebook_codec({.name = "turboquant",
                                                   .bits = bits,
                                                   .axis = ScaleAxis::kToken,
                                                   .scaling = CodebookFormat::Scaling::kLength,
                                                   .for_keys = bits % 2 == 0},
                                                  shared_halves(levels(bits)));
          return make_rotation_codec(inner, shared_halves(random_rotation(width, 7)), TurnedReading::kTurned);
        },
        "turned, " + std::to_string(bits) + " bits");
}

// As far as the front goes, and whole pages of it.
TEST(DeviceCodes, OfTokensBehindADenseFront) {
  const Codec quants[] = {make_quant_codec({.bits = 4, .outliers = 0.05, .dense_channels = 1}),
                          make_quant_codec({.bits = 3, .axis = ScaleAxis::kChannel, .for_keys = true}),
                          make_quant_codec({.bits = 8, .group = 5, .symmetric = true})};
  for (const int64_t front : {1, 3, 16})
    for (const Codec& quant : quants) {
      const Codec codec = make_front_dense_codec(front, quant);
      expect_codes_everywhere([&](int64_t) { return codec; }, codec->name());
      const Codec turned = make_hadamard_codec(codec);
      for (const int64_t tokens : kTokens) expect_codes(*turned, tokens, 64, DType::kF16, turned->name());
    }
}

TEST(DeviceCodes, OfCentroids) {
  for (const int bits : {8, 4, 3, 2})
    for (const int64_t parts : {1, 8, 16})
      expect_codes_everywhere(
          [&](int64_t width) {
            const PqShape shape{.width = width, .m = parts, .bits = bits};
            std::vector<float> centroids = normal_rows(width * shape.entries(), static_cast<unsigned>(bits));
            // Centroid 2 of the first part is centroid 1: the first one is taken.
            for (int64_t i = 0; i < shape.sub_width(); ++i)
              centroids[static_cast<std::size_t>(i * shape.entries() + 2)] =
                  centroids[static_cast<std::size_t>(i * shape.entries() + 1)];
            return make_pq_codec(shape, shared_halves(centroids));
          },
          std::to_string(parts) + " parts of " + std::to_string(bits) + " bits");
}

TEST(DeviceCodes, OfOtherDenseTypes) {
  for (const Codec& codec :
       {make_dense_codec(DType::kF32), make_dense_codec(DType::kF16), make_dense_codec(DType::kBF16),
        make_fp8_codec(Fp8::kE4M3), make_fp8_codec(Fp8::kE5M2)})
    expect_codes_everywhere([&](int64_t) { return codec; }, codec->name());
}

// Two layers' rows: alike, of one direction, opposite, one without length, and far apart.
struct Pair {
  Pair(int64_t tokens, int64_t width, DType type)
      : lower(page_rows(tokens, width, 3), width, type),
        upper(other_rows(lower.numbers, tokens, width), width, type) {}
  static std::vector<float> other_rows(const std::vector<float>& lower, int64_t tokens, int64_t width) {
    std::vector<float> rows = normal_rows(tokens * width, 8);
    const float factors[] = {1.0f, 2.0f, -1.0f, 0.0f};
    for (int64_t t = 0; t < tokens; t += 2)
      for (int64_t c = 0; c < width; ++c) {
        const auto i = static_cast<std::size_t>(t * width + c);
        rows[i] = t % 8 == 6 ? 0.0f : lower[i] * factors[t / 2 % 4] + (t % 16 < 8 ? 0.0f : 0.5f * rows[i]);
      }
    return rows;
  }
  OpenRows lower, upper;
};

std::vector<float> between(const Pair& pair, double share) {
  std::vector<float> rows(pair.lower.numbers.size());
  for (int64_t t = 0; t < pair.lower.tokens; ++t)
    direction_between(
        [&](int32_t c) { return pair.lower.view().at(t, c); },
        [&](int32_t c) { return pair.upper.view().at(t, c); }, static_cast<int32_t>(pair.lower.width), share,
        [&](int32_t c, float x) { rows[static_cast<std::size_t>(t * pair.lower.width + c)] = x; });
  return rows;
}

// The base of the pair, by the codec and by lanes; the codec's.
BaseSide expect_base(const Codec& codec, const Pair& pair, double share) {
  const std::vector<float> directions = between(pair, share);
  const int64_t tokens = pair.lower.tokens, width = pair.lower.width;
  BaseSide base{codec.get(), encoded_by(*codec, {directions.data(), tokens, width})};
  EXPECT_EQ(coded_by_lanes(*codec, pair.lower, &pair.upper, share).payload, base.payload)
      << codec->name() << ", " << tokens << " tokens, width " << width;
  return base;
}

TEST(DeviceCodes, OfSharedDirections) {
  for (const Codec& codec : {make_dense_codec(DType::kF16), make_dense_codec(DType::kF32)})
    for (const int64_t width : kWidths)
      for (const int64_t tokens : kTokens)
        for (const DType type : kTypes)
          for (const double retain : {0.0, 0.05, 0.3, 1.0}) {
            const Pair pair(tokens, width, type);
            const BaseSide base = expect_base(codec, pair, retain == 1.0 ? 0.0 : 0.6);
            const Codec along = make_minicache_codec(retain);
            for (const OpenRows* rows : {&pair.lower, &pair.upper}) {
              const CodedByLanes coded = coded_by_lanes(*along, *rows, nullptr, 0.0, base);
              ASSERT_EQ(coded.payload, encoded_by(*along, rows->view(),
                                                  {.base = base.payload.data(), .base_codec = codec.get()}))
                  << tokens << " tokens, width " << width << ", " << dtype_name(type) << ", retain "
                  << retain;
              ASSERT_FALSE(coded.refused);
            }
          }
}

// The CPU may decode a packed base with other roundings: lengths then differ by a digit of f16 at most.
// Tokens are far enough from each other for the same ones to be retained.
TEST(DeviceCodes, OfSharedDirectionsInCodes) {
  const Codec codecs[] = {
      make_quant_codec({.bits = 4}),
      make_quant_codec(
          {.bits = 3, .axis = ScaleAxis::kChannel, .group = 5, .outliers = 0.05, .for_keys = true}),
      make_quant_codec({.bits = 8, .symmetric = true, .outliers = 0.02, .dense_channels = 2}),
      make_codebook_codec(
          {.name = "nuq", .bits = 4, .axis = ScaleAxis::kChannel, .for_keys = true, .outliers = 0.05},
          shared_halves(levels(4)))};
  const Codec along = make_minicache_codec(0.2);
  for (const Codec& codec : codecs)
    for (const int64_t width : kWidths)
      for (const int64_t tokens : kTokens) {
        Pair pair(tokens, width, DType::kF16);
        const BaseSide base = expect_base(codec, pair, 0.6);
        std::vector<std::byte> expected =
            encoded_by(*along, pair.upper.view(), {.base = base.payload.data(), .base_codec = codec.get()});
        CodedByLanes coded = coded_by_lanes(*along, pair.upper, nullptr, 0.0, base);
        for (int64_t t = 0; t < tokens; ++t) {
          auto* found = reinterpret_cast<uint16_t*>(coded.payload.data()) + t;
          const uint16_t length = reinterpret_cast<const uint16_t*>(expected.data())[t];
          ASSERT_NEAR(*found, length, 1) << codec->name() << ", token " << t;
          *found = length;
        }
        ASSERT_EQ(coded.payload, expected) << codec->name() << ", " << tokens << " tokens, width " << width;
      }
}

TEST(DeviceCodes, AreRefusedWhereTheCodecRefuses) {
  const Codec dense = make_dense_codec(DType::kF16);
  const BaseSide base{dense.get(), encoded_by(*dense, {std::vector<float>(64, 0.25f).data(), 4, 16})};
  struct Case {
    Codec codec;
    bool on_base;
  };
  const Case cases[] = {
      {make_codebook_codec({.name = "nuq", .bits = 3, .axis = ScaleAxis::kToken, .outliers = 0.1},
                           shared_halves(levels(3))),
       false},
      {make_rotation_codec(make_codebook_codec({.name = "turboquant",
                                                .bits = 4,
                                                .axis = ScaleAxis::kToken,
                                                .scaling = CodebookFormat::Scaling::kLength},
                                               shared_halves(levels(4))),
                           shared_halves(random_rotation(16, 1)), TurnedReading::kTurned),
       false},
      {make_front_dense_codec(1, make_quant_codec({.bits = 4})), false},
      {make_pq_codec({.width = 16, .m = 4, .bits = 4}, shared_halves(normal_rows(256, 1))), false},
      {make_minicache_codec(0.5), true}};
  for (const Case& of : cases)
    for (const float number : {1.0f, 60000.0f, 3e5f, 3e38f, INFINITY, -INFINITY, NAN}) {
      std::vector<float> numbers(64, 1.0f);
      numbers[37] = number;
      const OpenRows rows(numbers, 16, DType::kF32);
      const SideData under =
          of.on_base ? SideData{.base = base.payload.data(), .base_codec = dense.get()} : SideData{};
      const bool refused = error_of([&] { encoded_by(*of.codec, rows.view(), under); }) != "no error";
      EXPECT_EQ(coded_by_lanes(*of.codec, rows, nullptr, 0.0, of.on_base ? base : BaseSide{}).refused,
                refused)
          << of.codec->name() << ": " << number;
    }
}

// The front is as it came, whatever it holds.
TEST(DeviceCodes, OfFrontsThatNobodyCodes) {
  std::vector<float> numbers(64, 1.0f);
  numbers[3] = INFINITY;
  numbers[4] = 1e6f;
  const OpenRows rows(numbers, 16, DType::kF32);
  const Codec codec = make_front_dense_codec(1, make_quant_codec({.bits = 4}));
  const CodedByLanes coded = coded_by_lanes(*codec, rows);
  EXPECT_EQ(coded.payload, encoded_by(*codec, rows.view()));
  EXPECT_FALSE(coded.refused);
}

}  // namespace
}  // namespace kva
