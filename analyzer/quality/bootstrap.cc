#include "analyzer/quality/bootstrap.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "analyzer/redundancy/seeded.h"
#include "kernels/check.h"
#include "runtime/error.h"

namespace kva {
namespace {

void check_option(const char* name, int64_t low, int64_t high, int64_t found) {
  if (found < low || found > high)
    throw InputError(fmt::format("bootstrap: {} must be {} to {}, found {}", name, low, high, found));
}

}  // namespace

BlockBootstrap::BlockBootstrap(std::span<const int64_t> window_tokens, const BootstrapOptions& options)
    : options_(options) {
  check_option("block_tokens", 1, 1000000, options.block_tokens);
  check_option("resamples", 100, 100000, options.resamples);
  KVA_CHECK(!window_tokens.empty(), "a window");
  double block_tokens = 0.0;
  for (const int64_t tokens : window_tokens) {
    KVA_CHECK(tokens >= 1, "windows with tokens");
    const int64_t length = std::min(tokens, options.block_tokens);
    const int64_t starts = tokens - length + 1;
    windows_.push_back({tokens_, length, blocks_});
    tokens_ += tokens;
    blocks_ += starts;
    disjoint_blocks_ += tokens / length;
    block_tokens += static_cast<double>(starts * length);
  }
  mean_block_tokens_ = block_tokens / static_cast<double>(blocks_);
}

BlockBootstrap::Window BlockBootstrap::block_at(int64_t block) const {
  const auto after = std::upper_bound(windows_.begin(), windows_.end(), block,
                                      [](int64_t b, const Window& window) { return b < window.first_block; });
  const Window& window = *(after - 1);
  return {window.first_token + (block - window.first_block), window.block_tokens, block};
}

std::vector<double> BlockBootstrap::replicates(std::span<const double> series) const {
  KVA_CHECK(static_cast<int64_t>(series.size()) == tokens_, "one number a token of the windows");
  const std::size_t resamples = static_cast<std::size_t>(options_.resamples);
  const double mean = mean_of(series);
  if (!std::isfinite(mean) || disjoint_blocks_ < kMinBlocks)
    return std::vector<double>(resamples, std::numeric_limits<double>::quiet_NaN());
  // Of deviations from the mean, which keeps the running sum small beside the terms; deviations[t] is the sum
  // of the first t.
  std::vector<double> deviations(series.size() + 1, 0.0);
  for (std::size_t t = 0; t < series.size(); ++t) deviations[t + 1] = deviations[t] + (series[t] - mean);
  const auto sum_of = [&](const Window& block) {
    return deviations[static_cast<std::size_t>(block.first_token + block.block_tokens)] -
           deviations[static_cast<std::size_t>(block.first_token)];
  };
  double expected = 0.0;
  for (int64_t block = 0; block < blocks_; ++block) expected += sum_of(block_at(block));
  expected /= static_cast<double>(blocks_) * mean_block_tokens_;

  const double tokens = static_cast<double>(tokens_);
  const int64_t draws = static_cast<int64_t>(std::ceil(tokens / mean_block_tokens_));
  const double spread = std::sqrt(static_cast<double>(draws) * mean_block_tokens_ / tokens);
  SeededRandom random(options_.seed, 0);
  std::vector<double> replicates(resamples);
  for (double& replicate : replicates) {
    double sum = 0.0;
    int64_t drawn = 0;
    for (int64_t k = 0; k < draws; ++k) {
      const Window block = block_at(random.below(blocks_));
      sum += sum_of(block);
      drawn += block.block_tokens;
    }
    replicate = mean + spread * (sum / static_cast<double>(drawn) - expected);
  }
  return replicates;
}

Estimate BlockBootstrap::percentile_interval(double value, std::vector<double> replicates) {
  Estimate estimate;
  estimate.value = value;
  const auto broken = [](double replicate) { return std::isnan(replicate); };
  if (replicates.empty() || std::any_of(replicates.begin(), replicates.end(), broken)) return estimate;
  std::sort(replicates.begin(), replicates.end());
  estimate.low = quantile(replicates, kIntervalLow);
  estimate.high = quantile(replicates, kIntervalHigh);
  return estimate;
}

Estimate BlockBootstrap::mean(std::span<const double> series) const {
  return percentile_interval(mean_of(series), replicates(series));
}

Estimate BlockBootstrap::difference(std::span<const double> a, std::span<const double> b) const {
  KVA_CHECK(a.size() == b.size(), "series of the same tokens");
  std::vector<double> difference(a.size());
  std::transform(a.begin(), a.end(), b.begin(), difference.begin(), std::minus<>());
  return mean(difference);
}

}  // namespace kva
