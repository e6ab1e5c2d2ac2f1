#include "tests/reports/example_statistics.h"

#include <fmt/format.h>

namespace kva::example {

double rounded(double value) { return std::round(value * 1e6) / 1e6; }

Json shares(const Spread& spread, int partners) {
  Json result = Json::object();
  for (const double threshold : kThresholds) {
    const double tail = 1 - spread.below(threshold);
    result[fmt::format("{:g}", threshold)] = rounded(partners > 0 ? 1 - std::pow(1 - tail, partners) : tail);
  }
  return result;
}

Json spread_json(const Spread& spread, int64_t pairs) {
  Json percentiles = Json::object();
  for (const int percent : {1, 5, 25, 50, 75, 95, 99})
    percentiles[std::to_string(percent)] = rounded(spread.percentile(percent / 100.0));
  return {{"pairs", pairs},
          {"mean", rounded(spread.mean)},
          {"std", rounded(spread.std)},
          {"percentiles", percentiles},
          {"share_over", shares(spread, 0)}};
}

Json histogram(const Spread& spread, int64_t pairs) {
  Json counts = Json::array();
  for (int i = 0; i < 100; ++i) {
    const double width = (spread.high - spread.low) / 100;
    const double share = spread.below(spread.low + (i + 1) * width) - spread.below(spread.low + i * width);
    counts.push_back(static_cast<int64_t>(std::llround(share * static_cast<double>(pairs))));
  }
  return counts;
}

std::vector<Series> series_of(bool rope) {
  if (!rope) return {{"K", "plain", 0.55}, {"V", nullptr, 0.12}};
  return {{"K", "rotated", 0.35}, {"K", "plain", 0.55}, {"V", nullptr, 0.12}};
}

double depth_of(int layer, int layers) { return layers > 1 ? layer / (layers - 1.0) : 0; }

Spread spread_of(const Series& series, const std::string& metric, const std::string& group, double depth) {
  double mean = series.level + 0.3 * (depth - 0.55) * (depth - 0.55);
  if (group == "repetitive") mean += 0.14;
  if (group == "code") mean += 0.05;
  double std = 0.17;
  if (metric == "cosine") mean += series.side == "K" ? 0.32 : 0.12;
  if (metric == "cosine") std = 0.09;
  if (metric == "l2_similarity") mean -= 0.25;
  if (metric == "hamming") return {0, 1, 0.5 + mean / 3, 0.07};
  if (metric == "jaccard") return {0, 1, 0.14 + mean / 2, 0.09};
  return {-1, 1, mean, std};
}

Spread shuffled_of(Spread spread) {
  const double rest = spread.low == 0 ? 0.3 : 0;
  return {spread.low, spread.high, rest + 0.8 * (spread.mean - rest), 0.6 * spread.std};
}

}  // namespace kva::example
