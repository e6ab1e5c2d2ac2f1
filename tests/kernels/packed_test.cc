#include "kernels/packed.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "tests/kernels/simd_targets.h"

namespace kva {
namespace {

constexpr int kAllBits[] = {2, 3, 4, 8};

std::vector<uint8_t> random_codes(int64_t count, int bits, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> codes(static_cast<std::size_t>(count));
  for (uint8_t& code : codes) code = static_cast<uint8_t>(random() & ((1u << bits) - 1));
  return codes;
}

// By hand: bits = 4, five channels, so two codes a byte in three lanes: (0,3) (1,4) (2,-).
TEST(Packed, LayoutOfOneRowByHand) {
  const uint8_t codes[] = {1, 2, 3, 4, 5};
  std::byte packed[4] = {};
  pack_row(codes, 4, 5, packed);
  EXPECT_EQ(packed_row_bytes(4, 5), 3);
  EXPECT_EQ(std::to_integer<int>(packed[0]), 1 | 4 << 4);
  EXPECT_EQ(std::to_integer<int>(packed[1]), 2 | 5 << 4);
  EXPECT_EQ(std::to_integer<int>(packed[2]), 3);
}

// By hand: bits = 3, nine channels in two lanes of three bytes: lane 0 has codes 0, 2, 4, 6, 8.
TEST(Packed, ThreeBitLayoutByHand) {
  const uint8_t codes[] = {7, 1, 0, 2, 5, 3, 1, 4, 6};
  std::byte packed[6] = {};
  pack_row(codes, 3, 9, packed);
  EXPECT_EQ(packed_row_bytes(3, 9), 6);
  const int lane0 = 7 | 0 << 3 | 5 << 6 | 1 << 9 | 6 << 12;
  const int lane1 = 1 | 2 << 3 | 3 << 6 | 4 << 9;
  for (int plane = 0; plane < 3; ++plane) {
    EXPECT_EQ(std::to_integer<int>(packed[2 * plane]), lane0 >> (8 * plane) & 255) << plane;
    EXPECT_EQ(std::to_integer<int>(packed[2 * plane + 1]), lane1 >> (8 * plane) & 255) << plane;
  }
}

TEST(Packed, WholeBlocksTakeNoMoreThanTheirBits) {
  for (const int bits : kAllBits) {
    EXPECT_EQ(packed_row_bytes(bits, 64), 8 * bits);
    EXPECT_EQ(packed_row_bytes(bits, 128), 16 * bits);
    EXPECT_EQ(packed_row_bytes(bits, 80), 10 * bits);
  }
}

TEST(Packed, EveryWidthComesBackAndNothingElseIsWritten) {
  for (const int bits : kAllBits) {
    for (int64_t width = 0; width <= 260; ++width) {
      const std::vector<uint8_t> codes = random_codes(width, bits, static_cast<unsigned>(width));
      const int64_t bytes = packed_row_bytes(bits, width);
      EXPECT_GE(8 * bytes, bits * width);
      std::vector<std::byte> packed(static_cast<std::size_t>(bytes) + 1, std::byte{0xa5});
      pack_row(codes.data(), bits, width, packed.data());
      EXPECT_EQ(packed.back(), std::byte{0xa5});
      std::vector<uint8_t> back(codes.size() + 1, 0xa5);
      unpack_row(packed.data(), bits, width, back.data());
      EXPECT_EQ(back.back(), 0xa5);
      back.pop_back();
      ASSERT_EQ(back, codes) << bits << " bits, width " << width;
    }
  }
}

struct Case {
  int bits;
  ScaleAxis axis;
  int64_t tokens, width, group;
  bool symmetric;
  int64_t queries;
  bool levels = false;      // codes stand for them
  bool by_channel = false;  // packed rows

  std::string text() const {
    return std::to_string(bits) + " bits, axis " + std::to_string(static_cast<int>(axis)) + ", " +
           std::to_string(tokens) + " x " + std::to_string(width) + ", group " + std::to_string(group) +
           (symmetric ? ", symmetric, " : ", ") + (levels ? "levels, " : "") +
           (by_channel ? "by channel, " : "") + std::to_string(queries) + " queries";
  }
};

// A page of random codes and scales, and its numbers in double.
struct RandomPage {
  explicit RandomPage(const Case& of) {
    std::mt19937 random(static_cast<unsigned>(of.tokens * 1000 + of.width + of.bits));
    std::uniform_real_distribution<float> uniform(0.01f, 1.0f);
    const std::vector<uint8_t> codes = random_codes(of.tokens * of.width, of.bits, 7);
    const int64_t rows = of.by_channel ? of.width : of.tokens;
    const int64_t cols = of.by_channel ? of.tokens : of.width;
    const int64_t row_bytes = packed_row_bytes(of.bits, cols);
    // Exactly as long as the rows: a load past them is a fault under a sanitizer.
    packed = std::make_unique<std::byte[]>(static_cast<std::size_t>(rows * row_bytes));
    for (int64_t r = 0; r < rows; ++r) {
      std::vector<uint8_t> row;
      for (int64_t c = 0; c < cols; ++c)
        row.push_back(codes[static_cast<std::size_t>(of.by_channel ? c * of.width + r : r * of.width + c)]);
      pack_row(row.data(), of.bits, cols, packed.get() + r * row_bytes);
    }
    for (int i = 0; i < 1 << of.bits; ++i) levels.push_back(uniform(random) - 0.5f);
    page = {.codes = packed.get(),
            .bits = of.bits,
            .tokens = of.tokens,
            .width = of.width,
            .axis = of.axis,
            .group = of.group,
            .levels = of.levels ? levels.data() : nullptr,
            .by_channel = of.by_channel};
    EXPECT_EQ(page.code_bytes(), rows * row_bytes);
    const int64_t count = page.scale_count();
    for (int64_t i = 0; i < count; ++i) {
      scales.push_back(f16_from_f32(uniform(random)));
      zeros.push_back(f16_from_f32(4.0f * uniform(random) - 3.0f));
    }
    page.scales = scales.data();
    page.zeros = of.symmetric ? nullptr : zeros.data();
    for (int64_t t = 0; t < of.tokens; ++t) {
      for (int64_t c = 0; c < of.width; ++c) {
        const auto s = static_cast<std::size_t>(page.scale_of(t, c));
        const double scale = f32_from_f16(scales[s]);
        const double middle = of.levels ? 0.0 : -scale * (1 << (of.bits - 1));
        const double zero = of.symmetric ? middle : double{f32_from_f16(zeros[s])};
        const uint8_t code = codes[static_cast<std::size_t>(t * of.width + c)];
        const double number = of.levels ? double{levels[code]} : code;
        numbers.push_back(number * scale + zero);
        magnitudes.push_back(std::abs(number) * scale + std::abs(zero));
      }
    }
  }

  std::unique_ptr<std::byte[]> packed;
  std::vector<uint16_t> scales, zeros;
  std::vector<float> levels;
  PackedPage page;
  std::vector<double> numbers, magnitudes;  // magnitudes: of the parts that a number is the sum of
};

constexpr double kEpsilon = 0x1p-24;
constexpr float kGuard = 12345.0f;

std::vector<float> normal_values(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

void expect_guard(const std::vector<float>& values, int64_t used) {
  for (auto i = static_cast<std::size_t>(used); i < values.size(); ++i) ASSERT_EQ(values[i], kGuard);
}

std::vector<float> guarded(int64_t count, float fill) {
  std::vector<float> values(static_cast<std::size_t>(count) + 16, kGuard);
  std::fill_n(values.begin(), count, fill);
  return values;
}

void check_layout(const Case& of) {
  SCOPED_TRACE(of.text());
  const RandomPage page(of);
  const int64_t n = of.queries, tokens = of.tokens, width = of.width;
  const std::vector<float> queries = normal_values(n * width, 3), weights = normal_values(n * tokens, 4);
  const int64_t scratch_values = packed_scratch(n, page.page);
  std::vector<float> scratch = guarded(scratch_values, NAN);
  std::vector<float> rows = guarded(tokens * width, NAN);
  packed_decode(page.page, scratch.data(), {rows.data(), tokens, width});
  for (std::size_t i = 0; i < page.numbers.size(); ++i)
    ASSERT_NEAR(rows[i], page.numbers[i], 2 * kEpsilon * page.magnitudes[i]);
  expect_guard(rows, tokens * width);
  std::vector<float> scores = guarded(n * tokens, NAN);
  packed_scores({queries.data(), n, width}, page.page, scratch.data(), {scores.data(), n, tokens});
  expect_guard(scores, n * tokens);
  std::vector<float> out = guarded(n * width, 0.5f);
  packed_accumulate({weights.data(), n, tokens}, page.page, scratch.data(), {out.data(), n, width});
  expect_guard(out, n * width);
  expect_guard(scratch, scratch_values);
  const auto at = [](int64_t r, int64_t c, int64_t cols) { return static_cast<std::size_t>(r * cols + c); };
  for (int64_t q = 0; q < n; ++q) {
    for (int64_t t = 0; t < tokens; ++t) {
      double dot = 0, magnitude = 0;
      for (int64_t c = 0; c < width; ++c) {
        const double query = queries[at(q, c, width)];
        dot += query * page.numbers[at(t, c, width)];
        magnitude += std::abs(query) * page.magnitudes[at(t, c, width)];
      }
      ASSERT_NEAR(scores[at(q, t, tokens)], dot, static_cast<double>(width + 4) * kEpsilon * magnitude);
    }
    for (int64_t c = 0; c < width; ++c) {
      double sum = 0.5, magnitude = 0.5;
      for (int64_t t = 0; t < tokens; ++t) {
        const double weight = weights[at(q, t, tokens)];
        sum += weight * page.numbers[at(t, c, width)];
        magnitude += std::abs(weight) * page.magnitudes[at(t, c, width)];
      }
      ASSERT_NEAR(out[at(q, c, width)], sum, static_cast<double>(tokens + 4) * kEpsilon * magnitude);
    }
  }
}

void check(Case of) {
  for (of.by_channel = false;; of.by_channel = true) {
    check_layout(of);
    if (of.by_channel) return;
  }
}

TEST(Packed, ProductsEqualThoseOfTheNumbersInDouble) {
  for_each_simd_target([] {
    for (const int bits : kAllBits)
      for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
        for (const bool symmetric : {false, true})
          for (const int64_t group : {32, 64}) {
            check({bits, axis, 64, 64, group, symmetric, 3});
            check({bits, axis, 33, 128, group, symmetric, 9});
          }
  });
}

TEST(Packed, OddShapes) {
  for_each_simd_target([] {
    for (const int bits : kAllBits)
      for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
        for (const int64_t width : {1, 7, 8, 9, 31, 62, 80, 96, 129, 256})
          for (const int64_t tokens : {1, 2, 5, 17})
            for (const int64_t group : {int64_t{1}, int64_t{5}, int64_t{16}, int64_t{300}})
              check({bits, axis, tokens, width, group, false, 2});
  });
}

TEST(Packed, LevelsOfACodebook) {
  for_each_simd_target([] {
    for (const int bits : kAllBits)
      for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
        for (const bool symmetric : {false, true})
          for (const int64_t width : {1, 9, 20, 64, 131})
            for (const int64_t group : {int64_t{16}, int64_t{300}})
              check({bits, axis, 19, width, group, symmetric, 3, true});
  });
}

TEST(Packed, ScalesLieByTokenOrByGroupOfTokens) {
  PackedPage page{.tokens = 5, .width = 7, .axis = ScaleAxis::kToken, .group = 3};
  EXPECT_EQ(page.scale_count(), 15);
  EXPECT_EQ(page.scale_of(0, 2), 0);
  EXPECT_EQ(page.scale_of(0, 3), 1);
  EXPECT_EQ(page.scale_of(4, 6), 14);
  page.axis = ScaleAxis::kChannel;
  EXPECT_EQ(page.scale_count(), 14);
  EXPECT_EQ(page.scale_of(2, 6), 6);
  EXPECT_EQ(page.scale_of(3, 0), 7);
  page.group = 5;
  EXPECT_EQ(page.scale_count(), 7);
  EXPECT_EQ(page.scale_of(4, 6), 6);
  page.tokens = 0;
  EXPECT_EQ(page.scale_count(), 0);
}

TEST(Packed, AnyNumberOfQueries) {
  for_each_simd_target([] {
    for (int64_t queries = 0; queries <= 16; ++queries)
      for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
        check({4, axis, 16, 64, 64, false, queries});
  });
}

// Rows that vectors cover without a rest, some of them several in a vector, and their neighbours that they do
// not.
TEST(Packed, RowsOfWholeVectors) {
  for_each_simd_target([] {
    for (const int bits : kAllBits)
      for (const ScaleAxis axis : {ScaleAxis::kToken, ScaleAxis::kChannel})
        for (const int64_t tokens : {8, 16, 32, 48, 64})
          for (const int64_t width : {16, 60, 62, 64, 128})
            for (const int64_t queries : {1, 3, 5})
              check({bits, axis, tokens, width, 300, queries == 5, queries, queries == 3 && width == 64});
  });
}

TEST(Packed, AnEmptyPageHasNoScoresAndAddsNothing) {
  PackedPage page;
  page.width = 8;
  page.group = 8;
  std::vector<float> scratch(static_cast<std::size_t>(packed_scratch(1, page)));
  const float query[8] = {};
  float out[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  packed_scores({query, 1, 8}, page, scratch.data(), {out, 1, 0});
  packed_accumulate({query, 1, 0}, page, scratch.data(), {out, 1, 8});
  for (int c = 0; c < 8; ++c) EXPECT_EQ(out[c], static_cast<float>(c + 1));
}

TEST(Packed, WhatLiesInTheScratchChangesNothing) {
  const Case of{3, ScaleAxis::kToken, 64, 64, 32, false, 5};
  const RandomPage page(of);
  const std::vector<float> queries = normal_values(5 * 64, 3);
  std::vector<float> scores[2];
  for (int i = 0; i < 2; ++i) {
    std::vector<float> scratch(static_cast<std::size_t>(packed_scratch(5, page.page)), i ? NAN : 0.0f);
    scores[i].resize(5 * 64);
    packed_scores({queries.data(), 5, 64}, page.page, scratch.data(), {scores[i].data(), 5, 64});
  }
  EXPECT_EQ(std::memcmp(scores[0].data(), scores[1].data(), 5 * 64 * sizeof(float)), 0);
}

}  // namespace
}  // namespace kva
