// The numbers that judge a candidate beside its base (docs/measuring.md): perplexity, KL divergence, change
// of the target's probability and agreement on the most likely token, over all scored tokens of a run.
//
// Tokens whose scores are NaN or inf are counted and never left out: a mean with an inf is inf, and NaN among
// the tokens makes every mean, percentile and maximum of that number NaN.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "analyzer/estimate.h"
#include "analyzer/quality/bootstrap.h"
#include "analyzer/quality/distribution.h"

namespace kva {

// The scores of one candidate in the order of the text. Windows are independent: each began with an empty
// cache.
struct ScoreSeries {
  std::vector<TokenScore> tokens;
  std::vector<int64_t> window_tokens;  // scored in each window; their sum is tokens.size()

  void begin_window() { window_tokens.push_back(0); }
  // To the window begun last.
  void append(std::span<const TokenScore> scores);
};

// Scored tokens at positions [first, last) of their window, counted from its first scored token.
struct PositionBin {
  int64_t first = 0;
  int64_t last = 0;
  int64_t tokens = 0;
  double kl_mean = 0.0;
};

struct QualitySummary {
  static constexpr int kPositionBins = 16;
  static constexpr std::array<int, 5> kDeltaPPercentiles = {1, 5, 50, 95, 99};

  int64_t tokens = 0;
  int64_t windows = 0;
  int64_t nonfinite_tokens = 0;  // a loss of either or the KL is NaN or inf
  BootstrapOptions bootstrap;    // how the intervals were made

  double perplexity_base = 0.0;  // exp of the mean loss
  double perplexity = 0.0;
  Estimate log_perplexity_ratio;  // mean of nll - nll_base = ln(perplexity / perplexity_base)
  Estimate perplexity_ratio;
  Estimate delta_perplexity;  // perplexity_ratio - 1

  Estimate kl_mean;  // nats a token
  double kl_median = 0.0;
  double kl_p99 = 0.0;
  double kl_p999 = 0.0;
  double kl_max = 0.0;
  // Equal parts of the longest window, parts of at least one position; fewer than kPositionBins where it is
  // shorter.
  std::vector<PositionBin> kl_by_position;

  // Of p - p_base.
  double delta_p_mean = 0.0;
  double delta_p_rms = 0.0;
  std::array<double, kDeltaPPercentiles.size()> delta_p_percentiles{};

  Estimate top1_agreement;  // share of tokens
};

// At least one token. Throws InputError for bad options.
QualitySummary summarize(const ScoreSeries& series, const BootstrapOptions& options);

// Two candidates on the same tokens: a minus b, paired.
struct QualityDifference {
  Estimate log_perplexity_ratio;  // ln(perplexity of a / perplexity of b)
  Estimate kl_mean;
  Estimate top1_agreement;
};

// Series with the same windows, at least one token.
QualityDifference compare_quality(const ScoreSeries& a, const ScoreSeries& b,
                                  const BootstrapOptions& options);

// One number of each token, for a bootstrap of the caller's own.
std::vector<double> kl_series(const ScoreSeries& series);

}  // namespace kva
