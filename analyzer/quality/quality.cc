#include "analyzer/quality/quality.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/check.h"

namespace kva {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

template <typename Of>
std::vector<double> column(const ScoreSeries& series, const Of& of) {
  std::vector<double> values(series.tokens.size());
  std::transform(series.tokens.begin(), series.tokens.end(), values.begin(), of);
  return values;
}

double log_ratio_of(const TokenScore& score) { return score.nll - score.nll_base; }
double kl_of(const TokenScore& score) { return score.kl; }
double top1_of(const TokenScore& score) { return score.same_top ? 1.0 : 0.0; }
double delta_p_of(const TokenScore& score) { return score.p - score.p_base; }

// Ascending; all NaN where one is, so that every quantile is.
std::vector<double> sorted(std::vector<double> values) {
  if (std::any_of(values.begin(), values.end(), [](double value) { return std::isnan(value); }))
    std::fill(values.begin(), values.end(), kNan);
  else
    std::sort(values.begin(), values.end());
  return values;
}

template <typename Function>
Estimate mapped(const Estimate& estimate, const Function& increasing) {
  return {increasing(estimate.value), increasing(estimate.low), increasing(estimate.high)};
}

std::vector<PositionBin> by_position(const ScoreSeries& series, const std::vector<double>& values) {
  const int64_t longest = *std::max_element(series.window_tokens.begin(), series.window_tokens.end());
  const int64_t bins = std::min<int64_t>(QualitySummary::kPositionBins, longest);
  std::vector<PositionBin> result(static_cast<std::size_t>(bins));
  std::size_t token = 0;
  for (const int64_t tokens : series.window_tokens)
    for (int64_t position = 0; position < tokens; ++position) {
      PositionBin& bin = result[static_cast<std::size_t>(position * bins / longest)];
      bin.kl_mean += values[token++];
      ++bin.tokens;
    }
  const auto first_of = [&](int64_t bin) { return (bin * longest + bins - 1) / bins; };
  for (int64_t b = 0; b < bins; ++b) {
    PositionBin& bin = result[static_cast<std::size_t>(b)];
    bin.first = first_of(b);
    bin.last = first_of(b + 1);
    bin.kl_mean /= static_cast<double>(bin.tokens);
  }
  return result;
}

void check_series(const ScoreSeries& series) {
  KVA_CHECK(!series.tokens.empty(), "scored tokens");
  const int64_t tokens =
      std::accumulate(series.window_tokens.begin(), series.window_tokens.end(), int64_t{0});
  KVA_CHECK(tokens == static_cast<int64_t>(series.tokens.size()), "windows that hold all tokens");
}

void add_kl(const ScoreSeries& series, const BlockBootstrap& bootstrap, QualitySummary& summary) {
  const std::vector<double> kl = column(series, kl_of);
  summary.kl_mean = bootstrap.mean(kl);
  summary.kl_by_position = by_position(series, kl);
  const std::vector<double> ascending = sorted(kl);
  summary.kl_median = quantile(ascending, 0.5);
  summary.kl_p99 = quantile(ascending, 0.99);
  summary.kl_p999 = quantile(ascending, 0.999);
  summary.kl_max = ascending.back();
}

void add_delta_p(const ScoreSeries& series, QualitySummary& summary) {
  const std::vector<double> delta_p = column(series, delta_p_of);
  const double squares = std::inner_product(delta_p.begin(), delta_p.end(), delta_p.begin(), 0.0);
  summary.delta_p_mean = mean_of(delta_p);
  summary.delta_p_rms = std::sqrt(squares / static_cast<double>(delta_p.size()));
  const std::vector<double> ascending = sorted(delta_p);
  for (std::size_t k = 0; k < QualitySummary::kDeltaPPercentiles.size(); ++k)
    summary.delta_p_percentiles[k] = quantile(ascending, QualitySummary::kDeltaPPercentiles[k] / 100.0);
}

}  // namespace

void ScoreSeries::append(std::span<const TokenScore> scores) {
  KVA_CHECK(!window_tokens.empty(), "a window was begun");
  tokens.insert(tokens.end(), scores.begin(), scores.end());
  window_tokens.back() += static_cast<int64_t>(scores.size());
}

QualitySummary summarize(const ScoreSeries& series, const BootstrapOptions& options) {
  check_series(series);
  const BlockBootstrap bootstrap(series.window_tokens, options);
  QualitySummary summary;
  summary.tokens = static_cast<int64_t>(series.tokens.size());
  summary.windows = static_cast<int64_t>(series.window_tokens.size());
  summary.bootstrap = options;
  summary.nonfinite_tokens =
      std::count_if(series.tokens.begin(), series.tokens.end(), [](const TokenScore& score) {
        return !(std::isfinite(score.nll_base) && std::isfinite(score.nll) && std::isfinite(score.kl));
      });

  const auto perplexity = [&](auto nll) { return std::exp(mean_of(column(series, nll))); };
  summary.perplexity_base = perplexity([](const TokenScore& score) { return score.nll_base; });
  summary.perplexity = perplexity([](const TokenScore& score) { return score.nll; });
  summary.log_perplexity_ratio = bootstrap.mean(column(series, log_ratio_of));
  summary.perplexity_ratio =
      mapped(summary.log_perplexity_ratio, [](double log_ratio) { return std::exp(log_ratio); });
  summary.delta_perplexity =
      mapped(summary.log_perplexity_ratio, [](double log_ratio) { return std::expm1(log_ratio); });
  summary.top1_agreement = bootstrap.mean(column(series, top1_of));
  add_kl(series, bootstrap, summary);
  add_delta_p(series, summary);
  return summary;
}

QualityDifference compare_quality(const ScoreSeries& a, const ScoreSeries& b,
                                  const BootstrapOptions& options) {
  check_series(a);
  check_series(b);
  KVA_CHECK(a.window_tokens == b.window_tokens, "candidates on the same windows");
  const BlockBootstrap bootstrap(a.window_tokens, options);
  QualityDifference difference;
  // Losses themselves, not their ratio to the base's: the base may be broken where the candidates are not.
  const auto nll = [](const TokenScore& score) { return score.nll; };
  difference.log_perplexity_ratio = bootstrap.difference(column(a, nll), column(b, nll));
  difference.kl_mean = bootstrap.difference(column(a, kl_of), column(b, kl_of));
  difference.top1_agreement = bootstrap.difference(column(a, top1_of), column(b, top1_of));
  return difference;
}

std::vector<double> kl_series(const ScoreSeries& series) { return column(series, kl_of); }

}  // namespace kva
