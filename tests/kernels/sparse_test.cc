#include "kernels/sparse.h"

#include <gtest/gtest.h>

#include <vector>

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
