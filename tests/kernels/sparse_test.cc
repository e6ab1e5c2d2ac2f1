#include "kernels/sparse.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "tests/kernels/simd_targets.h"

namespace kva {
namespace {

// Token 0 has 10 at channel 2, token 1 has 3 at channel 0 and 5 at channel 2.
TEST(Sparse, ByHand) {
  const int32_t tokens[] = {0, 1, 1}, channels[] = {2, 0, 2};
  const float values[] = {10, 3, 5};
  const SparseNumbers numbers{tokens, channels, values, 3};
  const std::vector<float> queries = {1, 100, 2, -1, 100, 0.5f};
  std::vector<float> scores = {1, 1, 1, 1};
  sparse_scores({queries.data(), 2, 3}, numbers, {scores.data(), 2, 2});
  EXPECT_EQ(scores, (std::vector<float>{21, 14, 6, 0.5f}));
  const std::vector<float> weights = {1, 2, 0, -1};
  std::vector<float> out(8, 7);
  sparse_accumulate({weights.data(), 2, 2}, numbers, {out.data(), 2, 3, 4});
  EXPECT_EQ(out, (std::vector<float>{13, 7, 27, 7, 4, 7, 2, 7}));
}

// Packed bit by bit; places over the last one count as it.
TEST(Sparse, PlacesOfEveryWidthComeBack) {
  std::mt19937 random(1);
  for (const auto& [bits, width] : {std::pair{1, 1}, {5, 7}, {12, 64}, {13, 80}, {24, 256}, {24, 1000}}) {
    const int64_t last = (int64_t{1} << bits) - 2;
    std::vector<int64_t> places = {0, last, last + 1};
    while (places.size() < 45) places.push_back(random() % (last + 2));
    std::vector<std::byte> list((places.size() * static_cast<std::size_t>(bits) + 7) / 8 + 4);
    for (std::size_t i = 0; i < places.size(); ++i)
      for (std::size_t bit = 0; bit < static_cast<std::size_t>(bits); ++bit) {
        const std::size_t at = i * static_cast<std::size_t>(bits) + bit;
        list[at / 8] |= static_cast<std::byte>((places[i] >> bit & 1) << (at % 8));
      }
    for_each_simd_target([&, bits = bits, width = width] {
      for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{16}, places.size()}) {
        std::vector<int32_t> tokens(count + 1, -7), channels(count + 1, -7);
        unpack_places(list.data(), bits, static_cast<int64_t>(count), last, width, tokens.data(),
                      channels.data());
        for (std::size_t i = 0; i < count; ++i) {
          const int64_t place = std::min(places[i], last);
          ASSERT_EQ(tokens[i], place / width) << bits << " bits, place " << place;
          ASSERT_EQ(channels[i], place % width) << bits << " bits, place " << place;
        }
        ASSERT_EQ(tokens[count], -7);
        ASSERT_EQ(channels[count], -7);
      }
    });
  }
}

TEST(Sparse, AnyNumberOfRows) {
  const int32_t tokens[] = {1}, channels[] = {0};
  const float values[] = {2};
  for (int64_t rows = 0; rows <= 16; ++rows) {
    std::vector<float> queries, scores(static_cast<std::size_t>(rows * 2), 0.0f);
    for (int64_t q = 0; q < rows; ++q) queries.push_back(static_cast<float>(q + 1));
    sparse_scores({queries.data(), rows, 1}, {tokens, channels, values, 1}, {scores.data(), rows, 2});
    for (int64_t q = 0; q < rows; ++q) {
      EXPECT_EQ(scores[static_cast<std::size_t>(q * 2)], 0.0f);
      EXPECT_EQ(scores[static_cast<std::size_t>(q * 2 + 1)], static_cast<float>(2 * (q + 1)));
    }
  }
}

}  // namespace
}  // namespace kva
