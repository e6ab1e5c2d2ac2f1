// Made-up distributions of similarity, from which the example report is put together.
#pragma once

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace kva::example {

using Json = nlohmann::ordered_json;

inline const std::vector<double> kThresholds = {0.8, 0.9, 0.95, 0.99};
inline const std::vector<std::string> kMetrics = {"cosine", "cosine_centered", "l2_similarity", "hamming",
                                                  "jaccard"};
inline const std::vector<std::string> kSets = {"general", "repetitive", "code"};
inline const std::vector<int> kSetPages = {420, 380, 340};
inline constexpr int kPages = 1140;
inline constexpr int kPageTokens = 16;
inline constexpr int kHeadDim = 64;
inline constexpr int kPageBytes = kPageTokens * kHeadDim * 2;

// Similarities as a normal distribution cut at the metric's ends.
struct Spread {
  double low, high, mean, std;

  double below(double x) const {
    if (x <= low) return 0;
    if (x >= high) return 1;
    const auto phi = [&](double at) { return 0.5 * std::erfc((mean - at) / (std * std::sqrt(2.0))); };
    return (phi(x) - phi(low)) / (phi(high) - phi(low));
  }
  double percentile(double share) const {
    double a = low, b = high;
    for (int i = 0; i < 50; ++i) (below((a + b) / 2) < share ? a : b) = (a + b) / 2;
    return a;
  }
};

struct Series {
  std::string side;
  Json basis;
  double level;  // how alike pages are
};

double rounded(double value);  // to six decimals
Json shares(const Spread& spread, int partners);
Json spread_json(const Spread& spread, int64_t pairs);
Json histogram(const Spread& spread, int64_t pairs);
std::vector<Series> series_of(bool rope);
double depth_of(int layer, int layers);  // 0 for the first layer, 1 for the last
// How alike pages of a layer are: most in the first layer, least in the middle.
Spread spread_of(const Series& series, const std::string& metric, const std::string& group, double depth);
Spread shuffled_of(Spread spread);

}  // namespace kva::example
