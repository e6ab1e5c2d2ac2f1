#include "compressors/token_policy.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"

namespace kva {
namespace {

// Places of the numbers from the highest to the lowest; ties to the earlier.
std::vector<int64_t> from_highest(std::span<const double> numbers) {
  std::vector<int64_t> order(numbers.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return numbers[static_cast<std::size_t>(a)] > numbers[static_cast<std::size_t>(b)];
  });
  return order;
}

}  // namespace

int64_t Extent::of(int64_t whole) const {
  // 0.1 * 30 is a little over 3.
  constexpr double kRounding = 1e-9;
  const double tokens = share ? std::ceil(value * static_cast<double>(whole) - kRounding) : value;
  return std::min(whole, static_cast<int64_t>(std::max(0.0, tokens)));
}

bool is_protected(const TokenTable& table, int64_t token, int64_t sinks, int64_t recent) {
  const int64_t position = table.positions[static_cast<std::size_t>(token)];
  return token >= table.movable || position < sinks || position >= table.seen - recent;
}

void keep_highest(const TokenTable& table, std::span<const double> scores, int64_t budget, int64_t sinks,
                  int64_t recent, Stays& stays) {
  int64_t room = budget;
  std::vector<int64_t> others;
  for (int64_t t = 0; t < table.tokens(); ++t) {
    if (is_protected(table, t, sinks, recent))
      --room;
    else
      others.push_back(t);
  }
  room = std::clamp<int64_t>(room, 0, static_cast<int64_t>(others.size()));
  const auto lower = [&](int64_t a, int64_t b) {
    const double of_a = scores[static_cast<std::size_t>(a)];
    const double of_b = scores[static_cast<std::size_t>(b)];
    return of_a != of_b ? of_a > of_b : a < b;
  };
  std::nth_element(others.begin(), others.begin() + room, others.end(), lower);
  for (auto gone = others.begin() + room; gone != others.end(); ++gone)
    stays[static_cast<std::size_t>(*gone)] = 0;
}

void keep_protected(const TokenTable& table, int64_t sinks, int64_t recent, Stays& stays) {
  for (int64_t t = 0; t < table.tokens(); ++t)
    if (!is_protected(table, t, sinks, recent)) stays[static_cast<std::size_t>(t)] = 0;
}

std::vector<double> ranks(std::span<const double> numbers) {
  std::vector<double> result(numbers.size(), 1.0);
  if (numbers.size() < 2) return result;
  const std::vector<int64_t> order = from_highest(numbers);
  const auto last = static_cast<double>(numbers.size() - 1);
  for (std::size_t i = 0; i < order.size(); ++i)
    result[static_cast<std::size_t>(order[i])] = 1.0 - static_cast<double>(i) / last;
  return result;
}

void RankedPolicy::choose(SequenceId, const PolicyMoment&, std::span<const TokenTable> layer,
                          std::span<Stays> stays) {
  std::vector<std::vector<double>> scores(layer.size());
  for (std::size_t h = 0; h < layer.size(); ++h) {
    scores[h].resize(static_cast<std::size_t>(layer[h].tokens()));
    score(layer[h], scores[h]);
  }
  if (options_.by_layer) {
    std::vector<double> together(scores.front().size(), 0.0);
    for (const std::vector<double>& of_head : scores) {
      KVA_CHECK(of_head.size() == together.size(), "heads that keep the same tokens have the same tokens");
      const std::vector<double> ranked = ranks(of_head);
      for (std::size_t t = 0; t < together.size(); ++t) together[t] += ranked[t];
    }
    std::fill(scores.begin(), scores.end(), together);
  }
  for (std::size_t h = 0; h < layer.size(); ++h)
    keep_highest(layer[h], scores[h], budget(layer[h]), options_.sinks, options_.recent.of(layer[h].seen),
                 stays[h]);
}

}  // namespace kva
