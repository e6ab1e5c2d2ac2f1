#include "kernels/similarity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <random>

namespace kva {
namespace {

std::vector<float> random_floats(std::size_t count, uint32_t seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = scale * (static_cast<float>(random() >> 8) / 8388608.0f - 1.0f);
  return values;
}

TEST(DotTile, MatchesDoubleAtAwkwardShapes) {
  for (const auto& [m, n, d] : {std::array<int64_t, 3>{1, 1, 1}, {3, 5, 7}, {17, 33, 65}, {128, 200, 96}}) {
    const int64_t stride = d + 3;
    const auto a = random_floats(static_cast<std::size_t>(m * stride), 1);
    const auto b = random_floats(static_cast<std::size_t>(n * stride), 2);
    std::vector<float> out(static_cast<std::size_t>(m * (n + 2)), 99.0f);
    dot_tile({a.data(), m, d, stride}, {b.data(), n, d, stride}, {out.data(), m, n, n + 2});
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double expected = 0.0;
        for (int64_t k = 0; k < d; ++k)
          expected += double{a[static_cast<std::size_t>(i * stride + k)]} *
                      double{b[static_cast<std::size_t>(j * stride + k)]};
        EXPECT_NEAR(out[static_cast<std::size_t>(i * (n + 2) + j)], expected, 1e-6 * static_cast<double>(d));
      }
      EXPECT_EQ(out[static_cast<std::size_t>(i * (n + 2) + n)], 99.0f) << "written past the row";
    }
  }
}

TEST(SimilarityMath, HandComputedPairs) {
  // x = (3, 4), y = (4, 3): x·y = 24, norms 5, distance sqrt(2).
  EXPECT_FLOAT_EQ(cosine_similarity(24.0f, 0.2f, 0.2f), 0.96f);
  EXPECT_FLOAT_EQ(squared_distance(25.0f, 25.0f, 24.0f), 2.0f);
  EXPECT_FLOAT_EQ(l2_similarity(std::sqrt(2.0f), 5.0f, 5.0f), 1.0f - std::sqrt(2.0f) / 5.0f);
  EXPECT_EQ(cosine_similarity(0.0f, 0.0f, 1.0f), 0.0f) << "a zero page";
  EXPECT_EQ(l2_similarity(0.0f, 0.0f, 0.0f), 1.0f) << "two zero pages are equal";
  EXPECT_EQ(l2_similarity(2.0f, 1.0f, 1.0f), -1.0f) << "x and -x";
  EXPECT_FLOAT_EQ(hamming_similarity(3, 8), 0.625f);
  EXPECT_FLOAT_EQ(jaccard_similarity(2, 4), 2.0f / 6.0f);
  EXPECT_EQ(jaccard_similarity(4, 4), 1.0f);
  EXPECT_EQ(histogram_bin(1.0f, -1.0f, 50.0f, 100), 99) << "1 falls into the last bin";
  EXPECT_EQ(histogram_bin(-1.0f, -1.0f, 50.0f, 100), 0);
}

TEST(PackSigns, SetsOneBitForEachPositiveNumber) {
  std::vector<float> values(70, -1.0f);
  values[0] = values[63] = values[64] = values[69] = 0.5f;
  values[1] = 0.0f;
  std::vector<uint64_t> words(2);
  pack_signs(values, words);
  EXPECT_EQ(words[0], uint64_t{1} | uint64_t{1} << 63);
  EXPECT_EQ(words[1], uint64_t{1} | uint64_t{1} << 5);
}

TEST(PackTopMagnitudes, TakesTheLargestAndBreaksTiesByIndex) {
  const std::vector<float> values = {1.0f, -5.0f, 2.0f, 2.0f, -2.0f, 0.0f, 2.0f, 3.0f};
  std::vector<uint64_t> words(1);
  pack_top_magnitudes(values, 4, words);
  // 5, 3 and the first two of the magnitudes 2.
  EXPECT_EQ(words[0], uint64_t{0b10001110});
  pack_top_magnitudes(values, 8, words);
  EXPECT_EQ(words[0], uint64_t{0xff});
  pack_top_magnitudes(std::vector<float>(8, 0.0f), 3, words);
  EXPECT_EQ(words[0], uint64_t{0b111});
}

TEST(PackTopMagnitudes, MatchesAStableSort) {
  for (const std::size_t count : {std::size_t{1}, std::size_t{65}, std::size_t{1000}}) {
    auto values = random_floats(count, static_cast<uint32_t>(count));
    // Half as many magnitudes as places, so that there are ties.
    for (float& value : values) value = std::round(value * static_cast<float>(count) / 4.0f);
    const int64_t size = top_set_size(static_cast<int64_t>(count), 0.25);
    std::vector<std::size_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return std::abs(values[a]) > std::abs(values[b]); });
    std::vector<uint64_t> expected((count + 63) / 64), words((count + 63) / 64);
    for (int64_t k = 0; k < size; ++k) {
      const std::size_t at = order[static_cast<std::size_t>(k)];
      expected[at / 64] |= uint64_t{1} << at % 64;
    }
    pack_top_magnitudes(values, size, words);
    EXPECT_EQ(words, expected) << count;
  }
}

TEST(TopSetSize, RoundsAndKeepsAtLeastOne) {
  EXPECT_EQ(top_set_size(1024, 0.25), 256);
  EXPECT_EQ(top_set_size(2, 0.1), 1);
  EXPECT_EQ(top_set_size(10, 0.25), 3);
}

TEST(BitTiles, MatchOnePairAtATime) {
  for (const auto& [pages, bits] : {std::array<int64_t, 2>{2, 1}, {13, 70}, {37, 64}, {50, 1000}}) {
    std::mt19937_64 random(static_cast<uint64_t>(bits));
    BitMatrix matrix(pages, bits);
    for (int64_t p = 0; p < pages; ++p) {
      std::vector<uint64_t> words(static_cast<std::size_t>(matrix.words()));
      for (int64_t b = 0; b < bits; ++b)
        words[static_cast<std::size_t>(b / 64)] |= (random() & 1) << (b % 64);
      matrix.set_page(p, words);
    }
    const int64_t row = pages / 3;
    const int64_t column = pages / 2;
    const int64_t rows = pages - row;
    const int64_t columns = pages - column;
    std::vector<uint32_t> differing(static_cast<std::size_t>(rows * (columns + 1)), 77u);
    std::vector<uint32_t> common = differing;
    differing_bits_tile(matrix, row, column, {differing.data(), rows, columns, columns + 1});
    common_bits_tile(matrix, row, column, {common.data(), rows, columns, columns + 1});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const std::size_t at = static_cast<std::size_t>(r * (columns + 1) + c);
        EXPECT_EQ(differing[at], differing_bits(matrix, row + r, matrix, column + c));
        EXPECT_EQ(common[at], common_bits(matrix, row + r, matrix, column + c));
      }
      EXPECT_EQ(differing[static_cast<std::size_t>(r * (columns + 1) + columns)], 77u);
    }
  }
}

TEST(BitPairs, CountByHand) {
  BitMatrix matrix(2, 66);
  matrix.set_page(0, std::vector<uint64_t>{0b1011, 0b01});
  matrix.set_page(1, std::vector<uint64_t>{0b0110, 0b11});
  EXPECT_EQ(differing_bits(matrix, 0, matrix, 1), 4u);
  EXPECT_EQ(common_bits(matrix, 0, matrix, 1), 2u);
}

// The sums that add_values keeps, one value at a time.
ValueTotals add_plainly(const std::vector<float>& values, const ValueRules& rules,
                        std::vector<int64_t>& histogram) {
  ValueTotals totals;
  int64_t squares = 0;
  for (const float value : values) {
    const int64_t q = std::llround(double{value} * 16777216.0);
    ++totals.count;
    totals.sum += q;
    squares += q * q;
    totals.min = std::min(totals.min, value);
    totals.max = std::max(totals.max, value);
    for (std::size_t t = 0; t < rules.thresholds.size(); ++t) totals.over[t] += value > rules.thresholds[t];
    const int32_t bin = static_cast<int32_t>((value - rules.low) * (kHistogramBins / (1.0f - rules.low)));
    ++histogram[static_cast<std::size_t>(std::min(bin, kHistogramBins - 1))];
  }
  totals.squares_low = squares;
  return totals;
}

TEST(AddValues, MatchesOneValueAtATime) {
  const std::vector<float> thresholds = {-0.5f, 0.0f, 0.8f, 0.99f};
  const ValueRules rules{-1.0f, thresholds};
  for (const std::size_t count : {0u, 1u, 7u, 16u, 255u, 3000u}) {
    const auto values = random_floats(count, 3);
    std::vector<int64_t> expected_histogram(kHistogramBins), histogram(kHistogramBins);
    const ValueTotals expected = add_plainly(values, rules, expected_histogram);
    ValueTotals totals;
    std::vector<float> best(count, 0.25f);
    const float largest =
        add_values(values.data(), static_cast<int64_t>(count), rules, totals, histogram.data(), best.data());
    EXPECT_EQ(totals.count, expected.count);
    EXPECT_EQ(totals.sum, expected.sum);
    EXPECT_EQ((totals.squares_high << 24) + totals.squares_low, expected.squares_low);
    EXPECT_EQ(totals.min, expected.min);
    EXPECT_EQ(totals.max, expected.max);
    EXPECT_EQ(largest, expected.max);
    for (int t = 0; t < kMaxThresholds; ++t) EXPECT_EQ(totals.over[t], expected.over[t]);
    EXPECT_EQ(histogram, expected_histogram);
    for (std::size_t k = 0; k < count; ++k) EXPECT_EQ(best[k], std::max(0.25f, values[k]));
  }
}

TEST(ValueTotals, MeanAndDeviationOfConstantAndKnownValues) {
  const ValueRules rules{-1.0f, {}};
  ValueTotals constant;
  const std::vector<float> same(1000, 0.9f);
  add_values(same.data(), 1000, rules, constant, nullptr, nullptr);
  EXPECT_NEAR(constant.mean(), 0.9, 1e-7);
  EXPECT_EQ(constant.standard_deviation(), 0.0);
  ValueTotals known;
  const std::vector<float> values = {0.5f, -0.5f, 0.5f, -0.5f};
  add_values(values.data(), 4, rules, known, nullptr, nullptr);
  EXPECT_EQ(known.mean(), 0.0);
  EXPECT_EQ(known.standard_deviation(), 0.5);
  known.merge(constant);
  EXPECT_EQ(known.count, 1004);
  EXPECT_NEAR(known.mean(), 900.0 / 1004.0, 1e-6);
}

TEST(PairProducts, MatchesNumbersWithTheirMeansAndUnits) {
  const int64_t tokens = 3;
  const int64_t channels = 13;
  const auto x = random_floats(static_cast<std::size_t>(tokens * channels), 4);
  const auto y = random_floats(static_cast<std::size_t>(tokens * channels), 5);
  const auto mean_x = random_floats(static_cast<std::size_t>(channels), 6);
  const auto mean_y = random_floats(static_cast<std::size_t>(channels), 7);
  PairProducts expected;
  for (std::size_t k = 0; k < x.size(); ++k) {
    const std::size_t c = k % static_cast<std::size_t>(channels);
    const double full_x = (double{x[k]} + double{mean_x[c]}) * 4.0;
    const double full_y = (double{y[k]} + double{mean_y[c]}) * 0.5;
    expected.centred_dot += double{x[k]} * double{y[k]};
    expected.dot += full_x * full_y;
    expected.squared_distance += (full_x - full_y) * (full_x - full_y);
  }
  const PairProducts found = pair_products({x.data(), mean_x.data(), tokens, channels, 4.0},
                                           {y.data(), mean_y.data(), tokens, channels, 0.5});
  EXPECT_NEAR(found.centred_dot, expected.centred_dot, 1e-12);
  EXPECT_NEAR(found.dot, expected.dot, 1e-12);
  EXPECT_NEAR(found.squared_distance, expected.squared_distance, 1e-11);
}

}  // namespace
}  // namespace kva
