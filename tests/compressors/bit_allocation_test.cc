#include "compressors/bit_allocation.h"

#include <gtest/gtest.h>

#include <limits>

#include "kernels/random.h"

namespace kva {
namespace {

using Parts = std::vector<std::vector<StorageChoice>>;

TEST(BitAllocation, SpendsWhereAByteGainsMost) {
  // The first part gains 6 for 2 bytes and then 1 for 2, the second 4 for 2 and then 3 for 2.
  const Parts parts = {{{2, 10}, {4, 4}, {6, 3}}, {{2, 9}, {4, 5}, {6, 2}}};
  using Chosen = std::vector<std::size_t>;
  EXPECT_EQ(allocate_bytes(parts, 3), std::nullopt);
  EXPECT_EQ(allocate_bytes(parts, 4), (Chosen{0, 0}));
  EXPECT_EQ(allocate_bytes(parts, 6), (Chosen{1, 0}));
  EXPECT_EQ(allocate_bytes(parts, 9), (Chosen{1, 1}));
  EXPECT_EQ(allocate_bytes(parts, 10), (Chosen{1, 2}));
  EXPECT_EQ(allocate_bytes(parts, 12), (Chosen{2, 2}));
  EXPECT_EQ(allocate_bytes({}, 0), Chosen());
}

TEST(BitAllocation, LeavesOutWhatLiesAboveTheHull) {
  // 3 bytes gain little, 4 bytes much: whoever pays for 3 had better pay for 4. 5 bytes lose more than 4.
  const Parts parts = {{{2, 10}, {3, 9.5}, {4, 2}, {5, 3}}};
  EXPECT_EQ(allocate_bytes(parts, 3)->front(), 0u);
  EXPECT_EQ(allocate_bytes(parts, 100)->front(), 2u);
}

// Never over the budget, and never worse than the best division by more than a step: all divisions are tried.
TEST(BitAllocation, IsWithinAStepOfTheBestDivision) {
  SplitMix64 random(5);
  for (int round = 0; round < 200; ++round) {
    Parts parts(4);
    int64_t most = 0;
    for (auto& choices : parts) {
      int64_t bytes = 0;
      for (int i = 0; i < 4; ++i) {
        bytes += 1 + static_cast<int64_t>(random.next() % 9);
        choices.push_back({bytes, random.uniform()});
      }
      most += bytes;
    }
    const auto budget = static_cast<int64_t>(random.next() % static_cast<uint64_t>(most + 1));
    const auto chosen = allocate_bytes(parts, budget);
    int64_t spent = 0, least = 0;
    double loss = 0.0;
    for (std::size_t p = 0; p < parts.size(); ++p) least += parts[p][0].bytes;
    ASSERT_EQ(chosen.has_value(), least <= budget);
    if (!chosen) continue;
    for (std::size_t p = 0; p < parts.size(); ++p) {
      spent += parts[p][(*chosen)[p]].bytes;
      loss += parts[p][(*chosen)[p]].loss;
    }
    ASSERT_LE(spent, budget);
    // A greedy walk may jump over a step that does not fit; then what it reaches is not on the joint hull,
    // and only the first such jump costs anything: at most one step's gain.
    double widest_step = 0.0, best = std::numeric_limits<double>::infinity();
    for (const auto& choices : parts)
      for (const auto& a : choices)
        for (const auto& b : choices) widest_step = std::max(widest_step, a.loss - b.loss);
    for (int code = 0; code < 256; ++code) {
      int64_t bytes = 0;
      double sum = 0.0;
      for (std::size_t p = 0, rest = static_cast<std::size_t>(code); p < 4; ++p, rest /= 4) {
        bytes += parts[p][rest % 4].bytes;
        sum += parts[p][rest % 4].loss;
      }
      if (bytes <= budget) best = std::min(best, sum);
    }
    ASSERT_LE(loss, best + widest_step + 1e-12);
  }
}

}  // namespace
}  // namespace kva
