#include "runtime/model/sampler.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "kernels/random.h"
#include "runtime/error.h"

namespace kva {
namespace {

// The first outputs of Vigna's splitmix64.c (prng.di.unimi.it) for the seed 1234567.
TEST(Sampler, RandomNumbersAreSplitMix64) {
  SplitMix64 random(1234567);
  EXPECT_EQ(random.next(), 6457827717110365317u);
  EXPECT_EQ(random.next(), 3203168211198807973u);
  EXPECT_EQ(random.next(), 9817491932198370423u);
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  Sampler sampler({});
  EXPECT_EQ(sampler.pick(std::array{0.5f, 2.0f, -1.0f, 2.0f}), 1);
  EXPECT_EQ(Sampler({.temperature = 1.0, .top_k = 1, .seed = 9}).pick(std::array{3.0f, 1.0f, 3.0f}), 0);
}

std::array<double, 4> shares(const SamplerOptions& options, const std::array<float, 4>& logits) {
  constexpr int kDraws = 40000;
  Sampler sampler(options);
  std::array<int, 4> counts{};
  for (int i = 0; i < kDraws; ++i) ++counts[static_cast<std::size_t>(sampler.pick(logits))];
  std::array<double, 4> result{};
  for (std::size_t i = 0; i < counts.size(); ++i) result[i] = static_cast<double>(counts[i]) / kDraws;
  return result;
}

// Probabilities 0.1, 0.4, 0.2, 0.3. Five standard deviations of 40,000 draws are 0.0125.
const std::array<float, 4> kLogits = {std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};
constexpr double kNoise = 0.0125;

TEST(Sampler, DrawsByProbability) {
  const auto drawn = shares({.temperature = 1.0, .seed = 1}, kLogits);
  EXPECT_NEAR(drawn[0], 0.1, kNoise);
  EXPECT_NEAR(drawn[1], 0.4, kNoise);
  EXPECT_NEAR(drawn[2], 0.2, kNoise);
  EXPECT_NEAR(drawn[3], 0.3, kNoise);
}

TEST(Sampler, TemperatureSquaresProbabilitiesAtOneHalf) {
  const auto drawn = shares({.temperature = 0.5, .seed = 2}, kLogits);
  EXPECT_NEAR(drawn[1], 0.16 / 0.30, kNoise);
  EXPECT_NEAR(drawn[0], 0.01 / 0.30, kNoise);
}

TEST(Sampler, TopKKeepsTheLikeliest) {
  const auto drawn = shares({.temperature = 1.0, .top_k = 2, .seed = 3}, kLogits);
  EXPECT_EQ(drawn[0] + drawn[2], 0.0);
  EXPECT_NEAR(drawn[1], 0.4 / 0.7, kNoise);
}

TEST(Sampler, TopPKeepsTheTokenThatCrosses) {
  // 0.4 + 0.3 < 0.75 <= 0.4 + 0.3 + 0.2.
  const auto drawn = shares({.temperature = 1.0, .top_p = 0.75, .seed = 4}, kLogits);
  EXPECT_EQ(drawn[0], 0.0);
  EXPECT_NEAR(drawn[2], 0.2 / 0.9, kNoise);
  // After top-k 2 the shares are 4/7 and 3/7: the first alone crosses one half.
  EXPECT_EQ(shares({.temperature = 1.0, .top_k = 2, .top_p = 0.5, .seed = 5}, kLogits)[1], 1.0);
}

TEST(Sampler, SameSeedSameTokens) {
  Sampler a({.temperature = 1.3, .seed = 77});
  Sampler b({.temperature = 1.3, .seed = 77});
  Sampler c({.temperature = 1.3, .seed = 78});
  int differences = 0;
  for (int i = 0; i < 100; ++i) {
    const int32_t token = a.pick(kLogits);
    EXPECT_EQ(token, b.pick(kLogits));
    differences += token != c.pick(kLogits);
  }
  EXPECT_GT(differences, 0);
}

TEST(Sampler, RefusesWhatCannotBe) {
  EXPECT_THROW(Sampler({.temperature = -1.0}), InputError);
  EXPECT_THROW(Sampler({.temperature = NAN}), InputError);
  EXPECT_THROW(Sampler({.top_k = -1}), InputError);
  EXPECT_THROW(Sampler({.top_p = 0.0}), InputError);
  EXPECT_THROW(Sampler({.top_p = 1.5}), InputError);
  EXPECT_THROW((void)most_likely(std::array{1.0f, std::numeric_limits<float>::quiet_NaN()}), InputError);
}

}  // namespace
}  // namespace kva
