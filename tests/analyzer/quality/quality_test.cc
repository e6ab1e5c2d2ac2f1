// The summary of a candidate's scores, and the difference of two candidates.
#include "analyzer/quality/quality.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/error_of.h"

namespace kva {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

TokenScore score_with(double nll_base, double nll, double kl, bool same_top = true) {
  return {nll_base, nll, kl, std::exp(-nll_base), std::exp(-nll), same_top};
}

// Two windows of two tokens; the second token's loss is ln 2 higher than the base's.
ScoreSeries four_tokens() {
  ScoreSeries series;
  series.begin_window();
  series.append(std::vector<TokenScore>{score_with(std::log(2.0), std::log(2.0), 0.0)});
  series.append(std::vector<TokenScore>{score_with(std::log(2.0), std::log(4.0), 0.4, false)});
  series.begin_window();
  series.append(std::vector<TokenScore>{score_with(std::log(8.0), std::log(8.0), 0.1),
                                        score_with(std::log(8.0), std::log(8.0), 0.3)});
  return series;
}

TEST(Quality, HandComputed) {
  const QualitySummary summary = summarize(four_tokens(), {});
  EXPECT_EQ(summary.tokens, 4);
  EXPECT_EQ(summary.windows, 2);
  EXPECT_EQ(summary.nonfinite_tokens, 0);
  EXPECT_NEAR(summary.perplexity_base, 4.0, 1e-12);  // (2 2 8 8)^(1/4)
  EXPECT_NEAR(summary.perplexity, 4.0 * std::pow(2.0, 0.25), 1e-12);
  EXPECT_NEAR(summary.log_perplexity_ratio.value, std::log(2.0) / 4.0, 1e-15);
  EXPECT_NEAR(summary.perplexity_ratio.value, std::pow(2.0, 0.25), 1e-12);
  EXPECT_NEAR(summary.delta_perplexity.value, std::pow(2.0, 0.25) - 1.0, 1e-12);
  EXPECT_NEAR(summary.kl_mean.value, 0.2, 1e-15);
  EXPECT_NEAR(summary.kl_median, 0.2, 1e-15);
  EXPECT_NEAR(summary.kl_p99, 0.3 + 0.97 * 0.1, 1e-12);  // numpy.quantile
  EXPECT_NEAR(summary.kl_p999, 0.3 + 0.997 * 0.1, 1e-12);
  EXPECT_EQ(summary.kl_max, 0.4);
  EXPECT_EQ(summary.top1_agreement.value, 0.75);
  // p - p_base is 0, -1/4, 0, 0.
  EXPECT_NEAR(summary.delta_p_mean, -0.0625, 1e-15);
  EXPECT_NEAR(summary.delta_p_rms, 0.125, 1e-15);
  EXPECT_NEAR(summary.delta_p_percentiles[0], -0.25 * 0.97, 1e-12);
  EXPECT_EQ(summary.delta_p_percentiles[2], 0.0);
  ASSERT_EQ(summary.kl_by_position.size(), 2U);
  EXPECT_NEAR(summary.kl_by_position[0].kl_mean, 0.05, 1e-15);
  EXPECT_NEAR(summary.kl_by_position[1].kl_mean, 0.35, 1e-15);
  EXPECT_TRUE(std::isnan(summary.kl_mean.low)) << "four tokens give no interval";
}

TEST(Quality, PositionsFallIntoEqualParts) {
  ScoreSeries series;
  for (const int tokens : {100, 40}) {
    series.begin_window();
    for (int t = 0; t < tokens; ++t) series.append(std::vector<TokenScore>{score_with(1.0, 1.0, t)});
  }
  const QualitySummary summary = summarize(series, {});
  ASSERT_EQ(summary.kl_by_position.size(), 16U);
  int64_t tokens = 0, last = 0;
  for (const PositionBin& bin : summary.kl_by_position) {
    EXPECT_EQ(bin.first, last);
    EXPECT_THAT(bin.last - bin.first, ::testing::AllOf(::testing::Ge(6), ::testing::Le(7)));
    // Every token's KL is its position.
    EXPECT_NEAR(bin.kl_mean, bin.first < 40 && bin.last > 40 ? bin.kl_mean : (bin.first + bin.last - 1) / 2.0,
                1e-12);
    tokens += bin.tokens;
    last = bin.last;
  }
  EXPECT_EQ(last, 100);
  EXPECT_EQ(tokens, 140);
  EXPECT_EQ(summary.kl_by_position[0].tokens, 2 * 7);
  EXPECT_EQ(summary.kl_by_position[15].tokens,
            summary.kl_by_position[15].last - summary.kl_by_position[15].first);
}

ScoreSeries many_tokens(double extra_nll, double kl) {
  ScoreSeries series;
  for (int w = 0; w < 4; ++w) {
    series.begin_window();
    for (int t = 0; t < 256; ++t) {
      const double wave = std::sin(0.7 * t + w);
      series.append(std::vector<TokenScore>{score_with(3.0 + wave, 3.0 + wave + extra_nll * (1.0 + wave),
                                                       kl * (1.0 + 0.5 * wave), t % 10 != 0)});
    }
  }
  return series;
}

TEST(Quality, IntervalsHoldTheirValuesAndFollowTheRatio) {
  const QualitySummary summary = summarize(many_tokens(0.01, 0.02), {});
  for (const Estimate* estimate : {&summary.log_perplexity_ratio, &summary.perplexity_ratio,
                                   &summary.delta_perplexity, &summary.kl_mean, &summary.top1_agreement}) {
    EXPECT_LT(estimate->low, estimate->value);
    EXPECT_GT(estimate->high, estimate->value);
  }
  EXPECT_EQ(summary.perplexity_ratio.low, std::exp(summary.log_perplexity_ratio.low));
  EXPECT_EQ(summary.delta_perplexity.high, std::expm1(summary.log_perplexity_ratio.high));
  EXPECT_NEAR(summary.perplexity / summary.perplexity_base, summary.perplexity_ratio.value, 1e-12);
}

TEST(Quality, EqualCandidatesHaveNoEffectAtAll) {
  ScoreSeries series = many_tokens(0.0, 0.0);
  for (TokenScore& score : series.tokens) score.same_top = true;
  const QualitySummary summary = summarize(series, {});
  for (const Estimate* estimate :
       {&summary.log_perplexity_ratio, &summary.delta_perplexity, &summary.kl_mean}) {
    EXPECT_EQ(estimate->value, 0.0);
    EXPECT_EQ(estimate->low, 0.0);
    EXPECT_EQ(estimate->high, 0.0);
  }
  EXPECT_EQ(summary.top1_agreement.low, 1.0);
  EXPECT_EQ(summary.perplexity, summary.perplexity_base);
}

TEST(Quality, BrokenTokensAreCountedAndShow) {
  ScoreSeries series = many_tokens(0.01, 0.02);
  series.tokens[30] = {3.0, kInf, kInf, std::exp(-3.0), 0.0, false};
  QualitySummary summary = summarize(series, {});
  EXPECT_EQ(summary.nonfinite_tokens, 1);
  EXPECT_EQ(summary.perplexity, kInf);
  EXPECT_EQ(summary.kl_mean.value, kInf);
  EXPECT_EQ(summary.kl_max, kInf);
  EXPECT_TRUE(std::isfinite(summary.kl_median) && std::isfinite(summary.delta_p_mean));
  EXPECT_TRUE(std::isnan(summary.kl_mean.low));

  series.tokens[31] = {3.0, kNan, kNan, std::exp(-3.0), kNan, false};
  summary = summarize(series, {});
  EXPECT_EQ(summary.nonfinite_tokens, 2);
  series.tokens[32].kl = kInf;  // the candidate rules out a token that is not the target
  EXPECT_EQ(summarize(series, {}).nonfinite_tokens, 3);
  for (const double number :
       {summary.perplexity, summary.perplexity_ratio.value, summary.kl_mean.value, summary.kl_median,
        summary.kl_p99, summary.kl_max, summary.delta_p_mean, summary.delta_p_rms,
        summary.delta_p_percentiles[2], summary.kl_by_position[1].kl_mean})
    EXPECT_TRUE(std::isnan(number));
  EXPECT_TRUE(std::isfinite(summary.perplexity_base));
  EXPECT_TRUE(std::isfinite(summary.top1_agreement.low));
  EXPECT_TRUE(std::isfinite(summary.kl_by_position[0].kl_mean));
}

TEST(Quality, DifferenceOfTwoCandidates) {
  const ScoreSeries a = many_tokens(0.03, 0.05), b = many_tokens(0.01, 0.02);
  const QualityDifference difference = compare_quality(a, b, {});
  const QualitySummary of_a = summarize(a, {}), of_b = summarize(b, {});
  EXPECT_NEAR(difference.log_perplexity_ratio.value, std::log(of_a.perplexity / of_b.perplexity), 1e-12);
  EXPECT_NEAR(difference.kl_mean.value, of_a.kl_mean.value - of_b.kl_mean.value, 1e-12);
  EXPECT_EQ(difference.top1_agreement.value, 0.0);
  EXPECT_EQ(difference.top1_agreement.low, 0.0);
  EXPECT_GT(difference.kl_mean.low, 0.0);
  const QualityDifference reversed = compare_quality(b, a, {});
  EXPECT_NEAR(reversed.kl_mean.value, -difference.kl_mean.value, 1e-15);
}

TEST(Quality, OptionsAndSeriesAreChecked) {
  EXPECT_EQ(error_of([] { summarize(four_tokens(), {.block_tokens = 0}); }),
            "bootstrap: block_tokens must be 1 to 1000000, found 0");
  EXPECT_DEATH(summarize(ScoreSeries(), {}), "scored tokens");
  ScoreSeries other = four_tokens();
  other.window_tokens = {1, 3};
  EXPECT_DEATH(compare_quality(four_tokens(), other, {}), "same windows");
}

}  // namespace
}  // namespace kva
