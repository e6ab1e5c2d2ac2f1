#include "kernels/packed_encode.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/dtype.h"
#include "tests/kernels/simd_targets.h"

namespace kva {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(PackedEncode, AllWithinFindsEveryPlace) {
  for_each_simd_target([] {
    for (const int64_t cols : {1, 5, 16, 37}) {
      std::vector<float> rows(static_cast<std::size_t>(3 * cols), -2.0f);
      EXPECT_TRUE(all_within({rows.data(), 3, cols}, 2.0f));
      for (float& value : rows) {
        for (const float bad : {2.0001f, -3.0f, kInfinity, -kInfinity, std::nanf("")}) {
          value = bad;
          EXPECT_FALSE(all_within({rows.data(), 3, cols}, 2.0f)) << bad;
        }
        value = 0.0f;
      }
    }
    EXPECT_TRUE(all_within({nullptr, 0, 4}, 0.0f));
  });
}

// Two tokens of three channels; the last number is kept.
TEST(PackedEncode, RangesByHand) {
  const std::vector<float> rows = {1, -2, 3, 0, 5, 9};
  const std::vector<uint8_t> kept = {0, 0, 0, 0, 0, 1};
  const auto ranges = [&](ScaleAxis axis, int64_t group, const uint8_t* without) {
    const PackedPage shape{.tokens = 2, .width = 3, .axis = axis, .group = group};
    std::vector<float> low(static_cast<std::size_t>(shape.scale_count())), high(low.size());
    EXPECT_TRUE(group_ranges({rows.data(), 2, 3}, shape, without, 9.0f, low.data(), high.data()));
    return std::pair{low, high};
  };
  using Ranges = std::pair<std::vector<float>, std::vector<float>>;
  for_each_simd_target([&] {
    EXPECT_EQ(ranges(ScaleAxis::kToken, 3, nullptr), (Ranges{{-2, 0}, {3, 9}}));
    EXPECT_EQ(ranges(ScaleAxis::kToken, 3, kept.data()), (Ranges{{-2, 0}, {3, 5}}));
    EXPECT_EQ(ranges(ScaleAxis::kToken, 2, kept.data()),
              (Ranges{{-2, 3, 0, kInfinity}, {1, 3, 5, -kInfinity}}));
    EXPECT_EQ(ranges(ScaleAxis::kChannel, 2, kept.data()), (Ranges{{0, -2, 3}, {1, 5, 3}}));
    EXPECT_EQ(ranges(ScaleAxis::kChannel, 1, nullptr), (Ranges{{1, -2, 3, 0, 5, 9}, {1, -2, 3, 0, 5, 9}}));
  });
}

// Kept or not, in a vector or behind the last one.
TEST(PackedEncode, RangesTellWhatIsBeyond) {
  for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
    for (const int64_t cols : {1, 5, 16, 37})
      for (const int64_t group : {int64_t{3}, int64_t{64}}) {
        const PackedPage shape{.tokens = 5, .width = cols, .axis = axis, .group = group};
        std::vector<float> rows(static_cast<std::size_t>(5 * cols), -2.0f);
        std::vector<float> low(static_cast<std::size_t>(shape.scale_count())), high(low.size());
        std::vector<uint8_t> kept(rows.size());
        for_each_simd_target([&] {
          const auto within = [&](const uint8_t* without) {
            return group_ranges({rows.data(), 5, cols}, shape, without, 2.0f, low.data(), high.data());
          };
          EXPECT_TRUE(within(nullptr));
          for (std::size_t i = 0; i < rows.size(); ++i) {
            kept[i] = 1;
            for (const float bad : {2.0001f, -3.0f, kInfinity, -kInfinity, std::nanf("")}) {
              rows[i] = bad;
              ASSERT_FALSE(within(nullptr)) << bad;
              ASSERT_FALSE(within(kept.data())) << bad;
            }
            rows[i] = -2.0f;
            kept[i] = 0;
          }
        });
      }
}

// Against the definition in double: the least f16 that reaches over the range.
TEST(PackedEncode, ScalesReachOverTheirRangesAndNoFurther) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> low = {0, -1, 1, kInfinity, -65504, 1e-9f}, high = {0, 1, 1, -kInfinity, 65504, 2e-9f};
  while (low.size() < 53) {
    const float a = normal(random), b = normal(random) * 100;
    low.push_back(std::min(a, b));
    high.push_back(std::max(a, b));
  }
  const auto count = static_cast<int64_t>(low.size());
  for (const int bits : {2, 3, 4, 8})
    for_each_simd_target([&] {
      std::vector<uint16_t> scales(low.size()), zeros(low.size()), symmetric(low.size());
      range_scales(low.data(), high.data(), count, bits, scales.data(), zeros.data());
      range_scales(low.data(), high.data(), count, bits, symmetric.data(), nullptr);
      const auto least = [](uint16_t scale, double width) {
        EXPECT_GE(double{f32_from_f16(scale)}, width);
        if (scale > 0) {
          EXPECT_LT(double{f32_from_f16(static_cast<uint16_t>(scale - 1))}, width);
        }
      };
      for (std::size_t i = 0; i < low.size(); ++i) {
        const bool none = low[i] > high[i];
        const float from = none ? 0 : low[i], to = none ? 0 : high[i];
        ASSERT_EQ(zeros[i], f16_from_f32(from));
        least(scales[i], std::max(0.0, double{to} - f32_from_f16(zeros[i])) / ((1 << bits) - 1));
        least(symmetric[i], double{std::max(-from, to)} / ((1 << (bits - 1)) - 1));
      }
    });
}

// Quotients next to halves, where a product with the inverse of the scale may fall to the other side.
TEST(PackedEncode, RoundsAsADivisionDoes) {
  std::mt19937 random(9);
  constexpr int64_t kCount = 255 * 16;
  std::vector<float> rows(kCount);
  std::vector<uint16_t> scales, zeros(16, 0);
  for (int i = 0; i < 16; ++i)
    scales.push_back(f16_from_f32(0.01f + static_cast<float>(random() % 1000) * 1e-3f));
  for (int64_t i = 0; i < kCount; ++i) {
    const double half = static_cast<double>(i / 16) + 0.5;
    float value = static_cast<float>(half * double{f32_from_f16(scales[static_cast<std::size_t>(i % 16)])});
    for (auto steps = random() % 5; steps > 2; --steps) value = std::nextafter(value, 0.0f);
    rows[static_cast<std::size_t>(i)] = value;
  }
  const PackedPage page{.bits = 8,
                        .tokens = 255,
                        .width = 16,
                        .axis = ScaleAxis::kChannel,
                        .group = 255,
                        .scales = scales.data(),
                        .zeros = zeros.data()};
  for_each_simd_target([&] {
    std::vector<std::byte> packed(kCount);
    pack_numbers({rows.data(), 255, 16}, page, nullptr, packed.data());
    for (std::size_t i = 0; i < rows.size(); ++i)
      ASSERT_EQ(std::to_integer<int>(packed[i]),
                static_cast<int>(std::min(255.0f, std::nearbyint(rows[i] / f32_from_f16(scales[i % 16])))))
          << i;
  });
}

// A scale of 2 and a zero of -1 at 2 bits: -1, 1, 3 and 5; halves go to even codes, what is beyond to the
// ends.
TEST(PackedEncode, CodesByHand) {
  const std::vector<float> rows = {-1, 0, 2, 4, 1, 5.1f, 99, -99, 3.9f, 4.1f};
  const std::vector<uint8_t> codes = {0, 0, 2, 2, 1, 3, 3, 0, 2, 3};
  const uint16_t scale = f16_from_f32(2.0f), zero = f16_from_f32(-1.0f);
  const PackedPage page{.bits = 2, .tokens = 1, .width = 10, .group = 10, .scales = &scale, .zeros = &zero};
  for_each_simd_target([&] {
    std::vector<std::byte> packed(static_cast<std::size_t>(packed_row_bytes(2, 10)));
    std::vector<uint8_t> back(10);
    pack_numbers({rows.data(), 1, 10}, page, nullptr, packed.data());
    unpack_row(packed.data(), 2, 10, back.data());
    EXPECT_EQ(back, codes);
  });
}

TEST(PackedEncode, SymmetricCodesAndWhatIsKeptByHand) {
  const std::vector<float> rows = {-7, 3.4f, 0.4f, -0.6f, 5, -100};
  const std::vector<uint8_t> kept = {0, 0, 0, 0, 1, 0};
  const uint16_t one = f16_from_f32(1.0f), none = 0;
  PackedPage page{.bits = 4, .tokens = 1, .width = 6, .group = 6, .scales = &one};
  for_each_simd_target([&] {
    std::vector<std::byte> packed(3);
    std::vector<uint8_t> back(6);
    page.scales = &one;
    pack_numbers({rows.data(), 1, 6}, page, kept.data(), packed.data());
    unpack_row(packed.data(), 4, 6, back.data());
    EXPECT_EQ(back, (std::vector<uint8_t>{1, 11, 8, 7, 8, 0}));
    page.scales = &none;
    pack_numbers({rows.data(), 1, 6}, page, nullptr, packed.data());
    unpack_row(packed.data(), 4, 6, back.data());
    EXPECT_EQ(back, std::vector<uint8_t>(6, 8));
  });
}

// [tokens, width], whatever the rows are.
std::vector<uint8_t> codes_of(const PackedPage& page, const std::byte* packed) {
  const int64_t rows = page.by_channel ? page.width : page.tokens;
  const int64_t cols = page.by_channel ? page.tokens : page.width;
  std::vector<uint8_t> codes(static_cast<std::size_t>(rows * cols)), row(static_cast<std::size_t>(cols));
  for (int64_t r = 0; r < rows; ++r) {
    unpack_row(packed + r * packed_row_bytes(page.bits, cols), page.bits, cols, row.data());
    for (int64_t c = 0; c < cols; ++c)
      codes[static_cast<std::size_t>(page.by_channel ? c * page.width + r : r * page.width + c)] =
          row[static_cast<std::size_t>(c)];
  }
  return codes;
}

// Against the definition one number at a time, for shapes with and without ends of blocks.
TEST(PackedEncode, EqualsItsDefinitionInEveryShape) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (const int bits : {2, 3, 4, 8})
    for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
      for (const int64_t width : {1, 20, 64, 131})
        for (const int64_t group : {int64_t{1}, int64_t{7}, int64_t{300}})
          for (const bool symmetric : {false, true}) {
            PackedPage page{.bits = bits, .tokens = 9, .width = width, .axis = axis, .group = group};
            std::vector<uint16_t> scales, zeros;
            for (int64_t i = 0; i < page.scale_count(); ++i) {
              scales.push_back(f16_from_f32(i % 5 == 4 ? 0.0f : 0.1f + 0.01f * static_cast<float>(i % 7)));
              zeros.push_back(f16_from_f32(normal(random)));
            }
            page.scales = scales.data();
            page.zeros = symmetric ? nullptr : zeros.data();
            std::vector<float> rows(static_cast<std::size_t>(9 * width));
            std::vector<uint8_t> kept(rows.size()), expected(rows.size());
            for (std::size_t i = 0; i < rows.size(); ++i) {
              rows[i] = normal(random);
              kept[i] = random() % 10 == 0;
              const auto s = static_cast<std::size_t>(
                  page.scale_of(static_cast<int64_t>(i) / width, static_cast<int64_t>(i) % width));
              const float scale = f32_from_f16(scales[s]);
              const float zero = symmetric ? 0.0f : f32_from_f16(zeros[s]);
              const float steps = kept[i] || scale == 0.0f ? 0.0f : std::nearbyint((rows[i] - zero) / scale);
              const float middle = symmetric ? static_cast<float>(1 << (bits - 1)) : 0.0f;
              expected[i] =
                  static_cast<uint8_t>(std::clamp(steps + middle, 0.0f, static_cast<float>((1 << bits) - 1)));
            }
            for (const bool by_channel : {false, true}) {
              page.by_channel = by_channel;
              for_each_simd_target([&] {
                std::vector<std::byte> packed(static_cast<std::size_t>(page.code_bytes()) + 1,
                                              std::byte{0xa5});
                pack_numbers({rows.data(), 9, width}, page, kept.data(), packed.data());
                EXPECT_EQ(packed.back(), std::byte{0xa5});
                ASSERT_EQ(codes_of(page, packed.data()), expected)
                    << bits << " bits, " << width << " wide, groups of " << group << by_channel;
              });
            }
          }
}

// The same bytes as its three parts over the whole page, however many rows are taken at once.
TEST(PackedEncode, APageAtOnceEqualsItsParts) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (const int bits : {2, 3, 4, 8})
    for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
      for (const int64_t group : {int64_t{7}, int64_t{64}})
        for (const int64_t tokens : {1, 16, 41, 64})
          for (const bool by_channel : {false, true})
            for (const bool symmetric : {false, true}) {
              PackedPage page{.bits = bits,
                              .tokens = tokens,
                              .width = 64,
                              .axis = axis,
                              .group = group,
                              .by_channel = by_channel};
              const auto count = static_cast<std::size_t>(page.scale_count());
              std::vector<float> rows(static_cast<std::size_t>(tokens * 64)), low(count), high(count);
              std::vector<uint8_t> kept(rows.size());
              for (std::size_t i = 0; i < rows.size(); ++i) {
                rows[i] = 3.0f + normal(random);
                kept[i] = random() % 10 == 0;
              }
              const MatView<const float> view(rows.data(), tokens, 64);
              for (const uint8_t* without : std::array<const uint8_t*, 2>{nullptr, kept.data()})
                for_each_simd_target([&] {
                  std::vector<uint16_t> scales(count), zeros(count), own_scales(count), own_zeros(count);
                  std::vector<std::byte> packed(static_cast<std::size_t>(page.code_bytes())), own(packed);
                  EXPECT_TRUE(group_ranges(view, page, without, 99.0f, low.data(), high.data()));
                  range_scales(low.data(), high.data(), page.scale_count(), bits, scales.data(),
                               symmetric ? nullptr : zeros.data());
                  PackedPage scaled = page;
                  scaled.scales = scales.data();
                  scaled.zeros = symmetric ? nullptr : zeros.data();
                  pack_numbers(view, scaled, without, packed.data());
                  EXPECT_TRUE(encode_page(view, page, without, 99.0f, own_scales.data(),
                                          symmetric ? nullptr : own_zeros.data(), own.data()));
                  EXPECT_EQ(own_scales, scales);
                  EXPECT_EQ(own_zeros, zeros);
                  ASSERT_EQ(own, packed) << bits << " bits, " << tokens << " tokens, groups of " << group;
                });
              rows.back() = std::nanf("");
              std::vector<std::byte> packed(static_cast<std::size_t>(page.code_bytes()));
              std::vector<uint16_t> scales(count), zeros(count);
              EXPECT_FALSE(
                  encode_page(view, page, nullptr, 99.0f, scales.data(), zeros.data(), packed.data()));
            }
}

}  // namespace
}  // namespace kva
