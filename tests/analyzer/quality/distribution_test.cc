// Losses, divergence and agreement of two rows of logits.
#include "analyzer/quality/distribution.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/random.h"
#include "tests/kernels/simd_targets.h"

namespace kva {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TokenScore score_of(const std::vector<float>& base, const std::vector<float>& candidate, int32_t target) {
  ThreadPool pool(1);
  const int64_t vocabulary = static_cast<int64_t>(base.size());
  TokenScore score;
  BaseDistributions(MatView<const float>(base.data(), 1, vocabulary), std::span(&target, 1), pool)
      .compare(MatView<const float>(candidate.data(), 1, vocabulary), std::span(&score, 1), pool);
  return score;
}

// About normal, of deviation `scale`.
std::vector<float> random_logits(int64_t count, uint64_t seed, double scale) {
  SplitMix64 random(seed);
  std::vector<float> logits(static_cast<std::size_t>(count));
  for (float& logit : logits) {
    double sum = -6.0;
    for (int k = 0; k < 12; ++k) sum += random.uniform();
    logit = static_cast<float>(scale * sum);
  }
  return logits;
}

// The definitions, in long double and in the order of the vocabulary.
TokenScore naive_score(const std::vector<float>& base, const std::vector<float>& candidate, int32_t target) {
  const auto log_sum = [](const std::vector<float>& logits) {
    const long double max = *std::max_element(logits.begin(), logits.end());
    long double sum = 0.0L;
    for (const float logit : logits) sum += std::exp(static_cast<long double>(logit) - max);
    return max + std::log(sum);
  };
  const long double log_sum_base = log_sum(base), log_sum_candidate = log_sum(candidate);
  long double kl = 0.0L;
  for (std::size_t i = 0; i < base.size(); ++i) {
    const long double log_p = static_cast<long double>(base[i]) - log_sum_base;
    const long double log_q = static_cast<long double>(candidate[i]) - log_sum_candidate;
    if (std::exp(log_p) > 0.0L) kl += std::exp(log_p) * (log_p - log_q);
  }
  const std::size_t at = static_cast<std::size_t>(target);
  TokenScore score;
  score.nll_base = static_cast<double>(log_sum_base - static_cast<long double>(base[at]));
  score.nll = static_cast<double>(log_sum_candidate - static_cast<long double>(candidate[at]));
  score.kl = static_cast<double>(kl);
  score.p_base = std::exp(-score.nll_base);
  score.p = std::exp(-score.nll);
  score.same_top = std::max_element(base.begin(), base.end()) - base.begin() ==
                   std::max_element(candidate.begin(), candidate.end()) - candidate.begin();
  return score;
}

TEST(Distribution, HandComputed) {
  // p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): KL = 1/2 ln 2 - 1/4 ln 2.
  const float ln2 = std::log(2.0f);
  const TokenScore score = score_of({ln2, 0.0f, 0.0f}, {5.0f, 5.0f, 5.0f + ln2}, 0);
  EXPECT_NEAR(score.nll_base, std::log(2.0), 1e-7);
  EXPECT_NEAR(score.nll, std::log(4.0), 1e-6);
  EXPECT_NEAR(score.kl, 0.25 * std::log(2.0), 1e-6);
  EXPECT_NEAR(score.p_base, 0.5, 1e-7);
  EXPECT_NEAR(score.p, 0.25, 1e-6);
  EXPECT_FALSE(score.same_top);
}

// Made by this, NumPy 2.4.6 and SciPy 1.17.1, with v, t, s from each row:
//   i = np.arange(v); b = ((i*7919*s + 13) % 1009)/64.0 - 8; c = b*0.96875 + ((i*31*s) % 17 - 8)/32.0
//   lp, lq = b - logsumexp(b), c - logsumexp(c); kl = rel_entr(np.exp(lp), np.exp(lq)).sum()
//   print(v, t, s, -lp[t], -lq[t], kl, np.exp(lp[t]), np.exp(lq[t]), b.argmax() == c.argmax())
struct ScipyRow {
  int64_t vocabulary;
  int32_t target;
  int64_t step;
  TokenScore expected;
};
const ScipyRow kScipyRows[] = {
    {1, 0, 1, {-0.0, -0.0, 0.0, 1.0, 1.0, true}},
    {5,
     3,
     1,
     {4.877221214768885, 4.91341265976578, 1.9768586683671565e-05, 0.0076181538558764495,
      0.0073473714191801785, true}},
    {1000,
     17,
     3,
     {15.50429734875917, 15.452755451081572, 0.011764884924442692, 1.8474352062793404e-07,
      1.9451521493090234e-07, false}},
    {1024,
     1023,
     5,
     {13.65819305086043, 13.486276073871178, 0.011172948471509854, 1.1703671548001104e-06,
      1.3899037276952846e-06, false}},
    {1025,
     1024,
     7,
     {18.490919598148395, 18.311720567985958, 0.01184313264093965, 9.321711403247468e-09,
      1.1151179409628329e-08, false}},
    {49152,
     40000,
     11,
     {16.100188201783197, 15.642003161314513, 0.01218280184178843, 1.018068748926951e-07,
      1.6097718963026853e-07, false}},
    {151936,
     151935,
     13,
     {11.899819411757314, 11.983027988273577, 0.012191034208735501, 6.791631185382159e-06,
      6.249381942701522e-06, false}},
};

// f64 on both sides: rounding of sums of logits of about 10 whose weights sum to 1.
constexpr double kRounding = 1e-13;

void expect_near(const TokenScore& found, const TokenScore& expected) {
  EXPECT_NEAR(found.nll_base, expected.nll_base, kRounding * (1.0 + expected.nll_base));
  EXPECT_NEAR(found.nll, expected.nll, kRounding * (1.0 + expected.nll));
  EXPECT_NEAR(found.kl, expected.kl, kRounding * (1.0 + expected.kl));
  EXPECT_NEAR(found.p_base, expected.p_base, 100 * kRounding * expected.p_base);
  EXPECT_NEAR(found.p, expected.p, 100 * kRounding * expected.p);
  EXPECT_EQ(found.same_top, expected.same_top);
}

TEST(Distribution, AgreesWithScipy) {
  for (const ScipyRow& row : kScipyRows) {
    std::vector<float> base, candidate;
    for (int64_t i = 0; i < row.vocabulary; ++i) {
      base.push_back(static_cast<float>((i * 7919 * row.step + 13) % 1009) / 64.0f - 8.0f);
      candidate.push_back(base.back() * 0.96875f + static_cast<float>((i * 31 * row.step) % 17 - 8) / 32.0f);
    }
    SCOPED_TRACE(row.vocabulary);
    for_each_simd_target([&] { expect_near(score_of(base, candidate, row.target), row.expected); });
  }
}

TEST(Distribution, AgreesWithTheDefinitionsAtEveryLengthOfTail) {
  for (const int64_t vocabulary : {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 1023, 1024, 1025, 2047, 3000}) {
    SCOPED_TRACE(vocabulary);
    const uint64_t seed = static_cast<uint64_t>(vocabulary);
    const std::vector<float> base = random_logits(vocabulary, seed, 4.0);
    const std::vector<float> candidate = random_logits(vocabulary, seed + 1, 3.0);
    const int32_t target = static_cast<int32_t>(vocabulary / 2);
    const TokenScore expected = naive_score(base, candidate, target);
    for_each_simd_target([&] { expect_near(score_of(base, candidate, target), expected); });
  }
}

TEST(Distribution, EqualRowsDivergeByExactlyZero) {
  for (const int64_t vocabulary : {1, 5, 1000, 1024, 49152}) {
    const std::vector<float> logits = random_logits(vocabulary, 5, 6.0);
    for_each_simd_target([&] {
      const TokenScore score = score_of(logits, logits, 0);
      EXPECT_EQ(score.kl, 0.0);
      EXPECT_EQ(score.nll, score.nll_base);
      EXPECT_EQ(score.p, score.p_base);
      EXPECT_TRUE(score.same_top);
    });
  }
}

TEST(Distribution, DivergenceIsNotNegativeBeyondRounding) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const std::vector<float> base = random_logits(700, seed, 5.0);
    std::vector<float> candidate = base;
    // From far apart down to the last bits of f32.
    const double step = std::pow(2.0, -static_cast<double>(seed % 25));
    SplitMix64 random(seed);
    for (float& logit : candidate) logit += static_cast<float>(step * (random.uniform() - 0.5));
    EXPECT_GE(score_of(base, candidate, 3).kl, -1e-14) << seed;
  }
}

TEST(Distribution, SmallDivergenceIsHalfTheVarianceOfTheChange) {
  // KL(p‖softmax(b + d)) = Var_p(d) / 2 + O(d³); here about 1e-7, as halves against f32 have.
  std::vector<float> base(512, 0.0f), candidate(512);
  for (std::size_t i = 0; i < candidate.size(); ++i) candidate[i] = i % 2 ? 0x1p-11f : -0x1p-11f;
  const double variance = 0x1p-22;
  EXPECT_NEAR(score_of(base, candidate, 0).kl, variance / 2, 1e-6 * variance);
}

TEST(Distribution, AConstantAddedToARowChangesNothing) {
  std::vector<float> base = random_logits(3000, 1, 4.0), candidate = random_logits(3000, 2, 4.0);
  // Multiples of 1/64, so that the sums are exact.
  for (std::vector<float>* logits : {&base, &candidate})
    for (float& logit : *logits) logit = std::round(logit * 64.0f) / 64.0f;
  const TokenScore expected = score_of(base, candidate, 11);
  for (const float constant : {-1000.0f, -3.5f, 17.0f, 100000.0f}) {
    std::vector<float> moved = candidate;
    for (float& logit : moved) logit += constant;
    const TokenScore score = score_of(base, moved, 11);
    EXPECT_EQ(score.kl, expected.kl);
    EXPECT_EQ(score.nll, expected.nll);
    for (float& logit : moved) logit -= constant;
    std::vector<float> moved_base = base;
    for (float& logit : moved_base) logit += constant;
    EXPECT_EQ(score_of(moved_base, moved, 11).kl, expected.kl);
  }
}

TEST(Distribution, TheLowestIndexWinsTies) {
  std::vector<float> base(3000, 0.0f), candidate(3000, 0.0f);
  base[5] = base[2500] = 2.0f;
  candidate[5] = 3.0f;
  EXPECT_TRUE(score_of(base, candidate, 0).same_top);
  candidate[2500] = 3.0f;
  EXPECT_TRUE(score_of(base, candidate, 0).same_top);
  candidate[4] = 3.0f;
  EXPECT_FALSE(score_of(base, candidate, 0).same_top);
}

TEST(Distribution, ABrokenCandidateHasNoNumbers) {
  const std::vector<float> base = random_logits(1100, 1, 4.0);
  for (const float broken : {kNan, kInf})
    for (const std::size_t at : {std::size_t{0}, std::size_t{9}, std::size_t{1099}})
      for_each_simd_target([&] {
        std::vector<float> candidate = base;
        candidate[at] = broken;
        const TokenScore score = score_of(base, candidate, 7);
        EXPECT_TRUE(std::isnan(score.kl) && std::isnan(score.nll) && std::isnan(score.p)) << at;
        EXPECT_TRUE(std::isfinite(score.nll_base) && std::isfinite(score.p_base));
        EXPECT_FALSE(score.same_top);
      });
  EXPECT_TRUE(std::isnan(score_of(base, std::vector<float>(1100, -kInf), 7).nll)) << "no probability at all";
  std::vector<float> infinite = base;
  infinite[9] = kInf;
  const TokenScore both = score_of(infinite, infinite, 9);
  EXPECT_TRUE(std::isnan(both.kl) && std::isnan(both.nll_base) && std::isnan(both.nll));
  EXPECT_FALSE(both.same_top);
}

TEST(Distribution, ABrokenBaseLeavesTheCandidateItsOwnLoss) {
  const std::vector<float> candidate = random_logits(1100, 1, 4.0);
  std::vector<float> base = candidate;
  base[1099] = kNan;
  const TokenScore score = score_of(base, candidate, 7);
  EXPECT_TRUE(std::isnan(score.kl) && std::isnan(score.nll_base) && std::isnan(score.p_base));
  EXPECT_EQ(score.nll, score_of(candidate, candidate, 7).nll);
  EXPECT_FALSE(score.same_top);
}

TEST(Distribution, AMaskedTokenHasNoProbability) {
  const std::vector<float> logits = {1.0f, 0.0f, -1.0f, 0.5f};
  std::vector<float> masked = logits;
  masked[2] = -kInf;
  for_each_simd_target([&] {
    const TokenScore of_target = score_of(logits, masked, 2);
    EXPECT_EQ(of_target.nll, kInf);
    EXPECT_EQ(of_target.p, 0.0);
    EXPECT_EQ(of_target.kl, kInf);
    EXPECT_TRUE(of_target.same_top);
    EXPECT_TRUE(std::isfinite(score_of(logits, masked, 0).nll));
    EXPECT_EQ(score_of(masked, masked, 0).kl, 0.0);
    // The mass that the base lacks and the candidate has costs the candidate -ln of the rest.
    const TokenScore other = score_of(masked, logits, 0);
    EXPECT_NEAR(other.kl, -std::log(1.0 - score_of(logits, logits, 2).p), 1e-14);
  });
}

TEST(Distribution, ExtremeLogits) {
  const float max = std::numeric_limits<float>::max();
  for_each_simd_target([&] {
    const TokenScore score = score_of({max, -max, 0.0f}, {-max, max, 0.0f}, 0);
    EXPECT_EQ(score.p_base, 1.0);
    EXPECT_EQ(score.p, 0.0);
    EXPECT_EQ(score.nll, 2.0 * static_cast<double>(max));
    EXPECT_EQ(score.kl, 2.0 * static_cast<double>(max));
    // A token the base gives less than any double counts for nothing, whatever the candidate says.
    EXPECT_EQ(score_of({0.0f, -2000.0f}, {0.0f, -kInf}, 0).kl, 0.0);
  });
}

TEST(Distribution, RowsDoNotDependOnThreadsOrStride) {
  constexpr int64_t kRows = 9, kVocabulary = 2500, kStride = 2600;
  const std::vector<float> base = random_logits(kRows * kStride, 1, 4.0);
  const std::vector<float> candidate = random_logits(kRows * kVocabulary, 2, 4.0);
  std::vector<int32_t> targets;
  for (int32_t r = 0; r < kRows; ++r) targets.push_back(r * 250);
  std::vector<TokenScore> scores(kRows);
  ThreadPool three(3);
  BaseDistributions(MatView<const float>(base.data(), kRows, kVocabulary, kStride), targets, three)
      .compare(MatView<const float>(candidate.data(), kRows, kVocabulary), scores, three);
  for (std::size_t r = 0; r < kRows; ++r) {
    const float* base_row = base.data() + r * kStride;
    const float* candidate_row = candidate.data() + r * kVocabulary;
    const TokenScore alone = score_of({base_row, base_row + kVocabulary},
                                      {candidate_row, candidate_row + kVocabulary}, targets[r]);
    EXPECT_EQ(scores[r].nll_base, alone.nll_base);
    EXPECT_EQ(scores[r].nll, alone.nll);
    EXPECT_EQ(scores[r].kl, alone.kl);
    EXPECT_EQ(scores[r].p_base, alone.p_base);
    EXPECT_EQ(scores[r].p, alone.p);
    EXPECT_EQ(scores[r].same_top, alone.same_top);
  }
}

TEST(DistributionDeathTest, TargetsOutsideTheVocabulary) {
  const std::vector<float> logits(4, 0.0f);
  EXPECT_DEATH(score_of(logits, logits, 4), "targets inside the vocabulary");
  EXPECT_DEATH(score_of(logits, logits, -1), "targets inside the vocabulary");
}

}  // namespace
}  // namespace kva
