// A share of successes and what it says.
#pragma once

#include <cmath>
#include <cstdint>

#include "analyzer/estimate.h"

namespace kva {

// hits / trials with its 95% score interval (E. B. Wilson, Probable inference, the law of succession, and
// statistical inference, JASA 1927): sensible also at 0 and at 1, where it does not shrink to a point. NaN
// for no trials. 0 <= hits <= trials; trials are independent.
inline Estimate wilson_estimate(int64_t hits, int64_t trials) {
  constexpr double kZ = 1.959963984540054;  // of the standard normal at 97.5%
  const auto n = static_cast<double>(trials);
  const double share = static_cast<double>(hits) / n;
  if (trials == 0) return {.value = share};
  const double shrink = 1 + kZ * kZ / n;
  const double center = (share + kZ * kZ / (2 * n)) / shrink;
  const double half = kZ * std::sqrt(share * (1 - share) / n + kZ * kZ / (4 * n * n)) / shrink;
  return {share, std::fmax(0.0, center - half), std::fmin(1.0, center + half)};
}

}  // namespace kva
