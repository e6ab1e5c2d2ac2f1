#include "compressors/subspace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/compressors/subspaces.h"

namespace kva {
namespace {

TEST(Subspace, AgreesWithNumPyOnATallMatrix) {
  for (const bool randomized : {false, true}) {
    const Subspace s = randomized ? randomized_subspace(view(kTall, 3), {.rank = 3}, 1)
                                  : exact_subspace(view(kTall, 3), {.rank = 3});
    ASSERT_EQ(s.rank, 3);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(s.singular_values[i], kTallValues[i], 1e-12);
    for (std::size_t i = 0; i < 9; ++i) EXPECT_NEAR(s.basis[i], kTallVectors[i], 1e-7) << i;
    EXPECT_NEAR(s.energy, 1.0, 1e-12);
  }
}

TEST(Subspace, AgreesWithNumPyOnAWideMatrix) {
  const std::vector<float> wide(kTall.begin(), kTall.begin() + 6);
  const Subspace s = exact_subspace(view(wide, 3), {.rank = 3});
  ASSERT_EQ(s.rank, 2) << "two rows span two dimensions";
  const std::vector<double> vectors{0.19955793815254272, 0.9342846701282437,  0.29544675405843285,
                                    0.9703907000800176,  -0.2302999806541117, 0.07282724839597063};
  EXPECT_NEAR(s.singular_values[0], 3.3409995001748185, 1e-12);
  EXPECT_NEAR(s.singular_values[1], 2.199482289047043, 1e-12);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(s.basis[i], vectors[i], 1e-7) << i;
}

TEST(Subspace, EnergyTakesAsFewDimensionsAsHoldIt) {
  // Shares of the squared singular values: 0.46245, 0.81357, 1.
  for (const auto& [energy, rank] :
       {std::pair{0.01, 1}, {0.462, 1}, {0.463, 2}, {0.813, 2}, {0.814, 3}, {1.0, 3}}) {
    EXPECT_EQ(exact_subspace(view(kTall, 3), {.energy = energy}).rank, rank) << energy;
    EXPECT_EQ(randomized_subspace(view(kTall, 3), {.energy = energy}, 1).rank, rank) << energy;
  }
  EXPECT_NEAR(exact_subspace(view(kTall, 3), {.rank = 2}).energy, 0.8135716147490809, 1e-12);
}

TEST(Subspace, RandomizedFindsTheExactOneWithinTheStatedBound) {
  constexpr int64_t kTokens = 256, kWidth = 96;
  for (const double fall : {0.6, 0.8, 0.85}) {
    const auto rows = rows_with_spectrum(kTokens, kWidth, fall, 2);
    for (const int64_t rank : {4, 16, 40}) {
      const Subspace exact = exact_subspace(view(rows, kWidth), {.rank = rank});
      const Subspace randomized = randomized_subspace(view(rows, kWidth), {.rank = rank}, 3);
      expect_orthonormal(exact, kWidth);
      expect_orthonormal(randomized, kWidth);
      // What f32 leaves of a falling spectrum has a floor: below it there is no subspace to find.
      if (100.0 * std::pow(fall, static_cast<double>(rank)) < 1e-3) continue;
      EXPECT_LT(sine_between(exact, randomized, kWidth), randomized_bound(kTokens, rank, fall) + 1e-5)
          << fall << " rank " << rank;
    }
  }
}

TEST(Subspace, RandomizedKeepsAsMuchWhereNothingStandsOut) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  std::vector<float> rows(256 * 64);
  for (float& value : rows) value = normal(random);
  const Subspace exact = exact_subspace(view(rows, 64), {.rank = 32});
  const Subspace randomized = randomized_subspace(view(rows, 64), {.rank = 32}, 5);
  EXPECT_LE(randomized.energy, exact.energy + 1e-12);
  EXPECT_GT(randomized.energy, 0.99 * exact.energy);
  const auto by_energy = randomized_subspace(view(rows, 64), {.energy = 0.8}, 5);
  EXPECT_GE(by_energy.energy, 0.8);
  EXPECT_NEAR(static_cast<double>(by_energy.rank),
              static_cast<double>(exact_subspace(view(rows, 64), {.energy = 0.8}).rank), 1);
}

TEST(Subspace, SameRowsAndSeedGiveTheSameBits) {
  const auto rows = rows_with_spectrum(60, 24, 0.9, 6);
  EXPECT_EQ(exact_subspace(view(rows, 24), {.rank = 7}).basis,
            exact_subspace(view(rows, 24), {.rank = 7}).basis);
  const auto drawn = [&](uint64_t seed) {
    return randomized_subspace(view(rows, 24), {.rank = 7}, seed).basis;
  };
  EXPECT_EQ(drawn(1), drawn(1));
  EXPECT_NE(drawn(1), drawn(2));
}

TEST(Subspace, DegenerateRowsStillGiveAnOrthonormalBasis) {
  for (const float value : {0.0f, 3.0f, 1e-40f, 3e38f}) {
    for (const int64_t tokens : {1, 5, 40}) {
      const std::vector<float> rows(static_cast<std::size_t>(tokens * 12), value);
      for (const bool randomized : {false, true}) {
        const Subspace s = randomized ? randomized_subspace(view(rows, 12), {.rank = 6}, 1)
                                      : exact_subspace(view(rows, 12), {.rank = 6});
        EXPECT_EQ(s.rank, std::min<int64_t>(6, tokens));
        expect_orthonormal(s, 12);
        EXPECT_EQ(exact_subspace(view(rows, 12), {.energy = 1.0}).rank, 1) << value;
      }
    }
  }
}

}  // namespace
}  // namespace kva
