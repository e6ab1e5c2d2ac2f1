// Means and quantiles of a sample, and numbers with an interval.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

namespace kva {

// A number and its 95% interval; low and high are NaN where the sample allows none.
struct Estimate {
  double value = 0.0;
  double low = std::numeric_limits<double>::quiet_NaN();
  double high = std::numeric_limits<double>::quiet_NaN();
};

// Where the bounds of a 95% percentile interval stand.
inline constexpr double kIntervalLow = 0.025;
inline constexpr double kIntervalHigh = 0.975;

// Summed in order; NaN for no values.
inline double mean_of(std::span<const double> values) {
  double sum = 0.0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// Quantile q in [0, 1] of ascending values, at least one: linear between the two neighbours of q (n - 1), as
// numpy.quantile does by default (Hyndman and Fan, The American Statistician 1996, type 7).
inline double quantile(std::span<const double> sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const std::size_t below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  const double share = at - static_cast<double>(below);
  // Also keeps a neighbour that is infinite out of a quantile that stands on a value.
  if (share == 0.0 || sorted[below] == sorted[above]) return sorted[below];
  return sorted[below] + share * (sorted[above] - sorted[below]);
}

}  // namespace kva
