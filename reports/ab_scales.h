// Axes on which the quality of recipes is drawn: differences of many sizes, and exact zeros, on one picture.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace kva {

// Where values stand along an axis, in units of its own, with its labelled ticks. report.html has the same.
struct QualityScale {
  enum class Kind { kLog, kLinear, kBothSides };
  Kind kind = Kind::kLinear;
  double low = 0;  // ends of the axis, in its units
  double high = 1;
  std::vector<std::pair<double, std::string>> ticks;  // place, text

  double at(double value) const;  // NaN for what has no place
};

// KL and relative errors: logarithmic. Values at or below 0 stand on the lower end, whose tick then says 0.
QualityScale log_scale(const std::vector<double>& values);
// Change of perplexity, as a share: linear, or where some change is over 10% linear about 0 and logarithmic
// on both sides beyond some 0.1%.
QualityScale change_scale(const std::vector<double>& values);

}  // namespace kva
