#include "compressors/codecs/signposts.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/check.h"

namespace kva {
namespace {

// ---- k-means in one dimension -------------------------------------------------------------------------

// Sums over the first i filled bins.
struct Prefix {
  std::vector<double> weight{0.0}, sum{0.0}, squares{0.0};

  // Least weighted sum of squares of bins [from, to) around one level, which is their mean.
  double cost(int from, int to) const {
    const double w = part(weight, from, to);
    const double s = part(sum, from, to);
    return std::max(0.0, part(squares, from, to) - s * s / w);
  }
  double mean(int from, int to) const { return part(sum, from, to) / part(weight, from, to); }

  static double part(const std::vector<double>& of, int from, int to) {
    return of[static_cast<std::size_t>(to)] - of[static_cast<std::size_t>(from)];
  }
};

// One more level: best[to] over the first `to` bins, where the last level takes [cut[to], to). The best cut
// moves right with `to`, so each half needs only the cuts on its side.
struct LevelAdder {
  const Prefix& prefix;
  const std::vector<double>& before;  // best with one level fewer
  std::vector<double>& best;
  std::vector<int>& cut;

  void solve(int first_to, int last_to, int first_cut, int last_cut) {
    if (first_to > last_to) return;
    const int to = first_to + (last_to - first_to) / 2;
    double least = std::numeric_limits<double>::infinity();
    int at = first_cut;
    for (int from = first_cut; from <= std::min(last_cut, to - 1); ++from) {
      const double cost = before[static_cast<std::size_t>(from)] + prefix.cost(from, to);
      if (cost >= least) continue;
      least = cost;
      at = from;
    }
    best[static_cast<std::size_t>(to)] = least;
    cut[static_cast<std::size_t>(to)] = at;
    solve(first_to, to - 1, first_cut, at);
    solve(to + 1, last_to, at, last_cut);
  }
};

// ---- Lloyd-Max ----------------------------------------------------------------------------------------

double density(double x) {
  return std::isinf(x) ? 0.0 : std::exp(-0.5 * x * x) / std::sqrt(2.0 * std::numbers::pi);
}

// P(low < X < high), from the tail on the far side of 0 so that nothing large cancels.
double probability(double low, double high) {
  if (low + high < 0.0) return probability(-high, -low);
  return 0.5 * (std::erfc(low / std::numbers::sqrt2) - std::erfc(high / std::numbers::sqrt2));
}

// Solves the tridiagonal system in place: x becomes the solution.
void solve_tridiagonal(std::vector<double>& below, std::vector<double>& diagonal, std::vector<double>& above,
                       std::vector<double>& x) {
  for (std::size_t i = 1; i < x.size(); ++i) {
    const double factor = below[i] / diagonal[i - 1];
    diagonal[i] -= factor * above[i - 1];
    x[i] -= factor * x[i - 1];
  }
  x.back() /= diagonal.back();
  for (std::size_t i = x.size() - 1; i-- > 0;) x[i] = (x[i] - above[i] * x[i + 1]) / diagonal[i];
}

// A Newton step towards levels that are each the mean of their cell, whose borders are half-way between
// levels. Returns the largest change.
double newton_step(std::vector<double>& levels) {
  const std::size_t n = levels.size();
  std::vector<double> below(n), diagonal(n), above(n), change(n);
  for (std::size_t i = 0; i < n; ++i) {
    const double infinity = std::numeric_limits<double>::infinity();
    const double low = i == 0 ? -infinity : 0.5 * (levels[i - 1] + levels[i]);
    const double high = i + 1 == n ? infinity : 0.5 * (levels[i] + levels[i + 1]);
    const double mass = probability(low, high);
    const double mean = (density(low) - density(high)) / mass;
    // How the mean follows each border.
    const double with_low = i == 0 ? 0.0 : density(low) * (mean - low) / mass;
    const double with_high = i + 1 == n ? 0.0 : density(high) * (high - mean) / mass;
    below[i] = -0.5 * with_low;
    diagonal[i] = 1.0 - 0.5 * (with_low + with_high);
    above[i] = -0.5 * with_high;
    change[i] = mean - levels[i];
  }
  solve_tridiagonal(below, diagonal, above, change);
  double largest = 0.0;
  for (std::size_t i = 0; i < n; ++i) {
    levels[i] += change[i];
    largest = std::max(largest, std::abs(change[i]));
  }
  return largest;
}

// x with P(X < x) = p, by halving.
double normal_quantile(double p) {
  double low = -10.0, high = 10.0;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (0.5 * std::erfc(-middle / std::numbers::sqrt2) < p ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

}  // namespace

NumberHistogram::NumberHistogram() : bins_(kBins) {}

void NumberHistogram::add(double number, double weight) {
  KVA_CHECK(std::abs(number) <= 1.0 && weight >= 0.0, "a weighted number in [-1, 1]");
  const int bin = std::min(kBins - 1, static_cast<int>((number + 1.0) * 0.5 * kBins));
  Bin& into = bins_[static_cast<std::size_t>(bin)];
  into.weight += weight;
  into.sum += weight * number;
  into.squares += weight * number * number;
}

double NumberHistogram::weight() const {
  double total = 0.0;
  for (const Bin& bin : bins_) total += bin.weight;
  return total;
}

std::vector<float> NumberHistogram::levels(int count) const {
  KVA_CHECK(count >= 2, "at least two levels");
  Prefix prefix;
  const double lightest = weight() * 1e-12;  // a sum of lighter bins drowns in the rounding of the prefixes
  for (const Bin& bin : bins_) {
    if (bin.weight <= lightest) continue;
    prefix.weight.push_back(prefix.weight.back() + bin.weight);
    prefix.sum.push_back(prefix.sum.back() + bin.sum);
    prefix.squares.push_back(prefix.squares.back() + bin.squares);
  }
  const int filled = static_cast<int>(prefix.weight.size()) - 1;
  std::vector<float> result;
  if (filled == 0) {
    for (int i = 0; i < count; ++i) result.push_back(static_cast<float>((2 * i + 1.0) / count - 1.0));
    return result;
  }
  const int used = std::min(count, filled);
  const auto size = static_cast<std::size_t>(filled) + 1;
  std::vector<double> best(size, std::numeric_limits<double>::infinity());
  best[0] = 0.0;
  std::vector<std::vector<int>> cuts;
  for (int level = 1; level <= used; ++level) {
    std::vector<double> next(size, std::numeric_limits<double>::infinity());
    cuts.emplace_back(size, 0);
    LevelAdder{prefix, best, next, cuts.back()}.solve(level, filled, level - 1, filled - 1);
    best = std::move(next);
  }
  for (int level = used, to = filled; level > 0; --level) {
    const int from = cuts[static_cast<std::size_t>(level) - 1][static_cast<std::size_t>(to)];
    result.push_back(static_cast<float>(prefix.mean(from, to)));
    to = from;
  }
  std::reverse(result.begin(), result.end());
  result.resize(static_cast<std::size_t>(count), result.back());
  return result;
}

std::vector<double> lloyd_max_levels(int bits) {
  KVA_CHECK(bits >= 1 && bits <= 8, "codes of 1 to 8 bits");
  const int count = 1 << bits;
  // Levels of many bits are as dense as the cube root of the density (Panter and Dite 1951): quantiles of a
  // normal number of three times the variance. Newton's method needs that near a start.
  std::vector<double> levels;
  levels.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) levels.push_back(std::numbers::sqrt3 * normal_quantile((i + 0.5) / count));
  for (int i = 0; i < 100 && newton_step(levels) > 1e-14; ++i) {
  }
  for (int i = 0; i < count / 2; ++i) {
    double& low = levels[static_cast<std::size_t>(i)];
    double& high = levels[static_cast<std::size_t>(count - 1 - i)];
    high = 0.5 * (high - low);
    low = -high;
  }
  return levels;
}

}  // namespace kva
