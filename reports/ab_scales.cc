#include "reports/ab_scales.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "reports/text_format.h"

namespace kva {
namespace {

constexpr double kTurn = 0.001;    // where a two-sided axis turns from linear to logarithmic
constexpr double kLinearTo = 0.1;  // changes up to here need no logarithm
constexpr double kMargin = 0.06;   // of the axis beyond its values
constexpr int kMostDecades = 9;    // with a tick each

std::string percent(double share) { return fmt::format("{}{:g}%", share > 0 ? "+" : "", 100 * share); }

double round_step(double span) {
  const double decade = std::pow(10.0, std::floor(std::log10(span)));
  for (const double step : {0.1, 0.2, 0.5, 1.0, 2.0})
    if (span / (step * decade) <= 6) return step * decade;
  return 5 * decade;
}

void linear_ticks(QualityScale& scale) {
  const double step = round_step(scale.high - scale.low);
  for (double i = std::ceil(scale.low / step); i * step <= scale.high; ++i)
    scale.ticks.emplace_back(i * step, percent(std::round(i * step * 1e8) / 1e8));
}

}  // namespace

double QualityScale::at(double value) const {
  if (!std::isfinite(value)) return std::numeric_limits<double>::quiet_NaN();
  if (kind == Kind::kLog) return value > 0 ? std::max(low, std::log10(value)) : low;
  return kind == Kind::kLinear ? value : std::asinh(value / kTurn);
}

QualityScale log_scale(const std::vector<double>& values) {
  double least = std::numeric_limits<double>::infinity(), most = 0;
  bool zeros = false;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    zeros = zeros || value <= 0;
    if (value > 0) least = std::min(least, value);
    most = std::max(most, value);
  }
  QualityScale scale;
  scale.kind = QualityScale::Kind::kLog;
  if (most <= 0) least = most = 1e-6;
  const double first = std::floor(std::log10(least) - 0.05);
  scale.high = std::max(std::log10(most) + 0.25, first + 1);
  scale.low = zeros ? first - 1 : first;
  if (zeros) scale.ticks.emplace_back(scale.low, "0");
  const double step = std::ceil((scale.high - first) / kMostDecades);
  for (double decade = first; decade <= scale.high; decade += step)
    scale.ticks.emplace_back(decade, fmt::format("{:g}", std::pow(10.0, decade)));
  return scale;
}

QualityScale change_scale(const std::vector<double>& values) {
  double least = 0, most = 0;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    least = std::min(least, value);
    most = std::max(most, value);
  }
  QualityScale scale;
  const bool linear = std::max(most, -least) <= kLinearTo;
  scale.kind = linear ? QualityScale::Kind::kLinear : QualityScale::Kind::kBothSides;
  const double low = scale.at(least), high = scale.at(most);
  const double margin = std::max(kMargin * (high - low), linear ? 1e-5 : 0.05);
  scale.low = low - margin;
  scale.high = high + margin;
  if (linear) {
    linear_ticks(scale);
    return scale;
  }
  scale.ticks.emplace_back(0, "0%");
  for (double size = kTurn; std::asinh(size / kTurn) <= std::max(scale.high, -scale.low); size *= 10)
    for (const double value : {-size, size})
      if (scale.at(value) >= scale.low && scale.at(value) <= scale.high)
        scale.ticks.emplace_back(scale.at(value), percent(value));
  return scale;
}

}  // namespace kva
