#include "analyzer/quality/equal_bytes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "analyzer/quality/bootstrap.h"
#include "kernels/check.h"

namespace kva {
namespace {

// By bytes, then loss, then place in the list; NaN counts as the largest loss.
std::vector<std::size_t> ordered(std::span<const CurvePoint> points) {
  std::vector<std::size_t> order(points.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto rank = [](double loss) {
    return std::isnan(loss) ? std::numeric_limits<double>::infinity() : loss;
  };
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    if (points[a].bytes != points[b].bytes) return points[a].bytes < points[b].bytes;
    return rank(points[a].loss) < rank(points[b].loss);
  });
  return order;
}

// A place on a curve: points `from` and `to`, and how far it is on the way.
struct Place {
  std::size_t from = 0;
  std::size_t to = 0;
  double share = 0.0;
};

std::optional<Place> place_at(std::span<const CurvePoint> points, int64_t bytes) {
  std::optional<std::size_t> before;
  for (const std::size_t i : ordered(points)) {
    if (points[i].bytes == bytes) return Place{i, i, 0.0};
    if (points[i].bytes > bytes) {
      if (!before) return std::nullopt;
      const double from = static_cast<double>(points[*before].bytes);
      return Place{*before, i,
                   (static_cast<double>(bytes) - from) / (static_cast<double>(points[i].bytes) - from)};
    }
    // Of those at the same bytes the first has the lowest loss.
    if (!before || points[*before].bytes != points[i].bytes) before = i;
  }
  return std::nullopt;
}

double loss_between(double from, double to, double share, LossScale scale) {
  if (share == 0.0) return from;
  if (scale == LossScale::kLog && from > 0.0 && to > 0.0)
    return std::exp(std::log(from) + share * (std::log(to) - std::log(from)));
  return from + share * (to - from);
}

}  // namespace

std::optional<double> loss_at_bytes(std::span<const CurvePoint> points, int64_t bytes, LossScale scale) {
  const std::optional<Place> place = place_at(points, bytes);
  if (!place) return std::nullopt;
  return loss_between(points[place->from].loss, points[place->to].loss, place->share, scale);
}

std::optional<Estimate> loss_difference_at_bytes(const ReplicatedCurve& a, const ReplicatedCurve& b,
                                                 int64_t bytes, LossScale scale) {
  KVA_CHECK(a.points.size() == a.replicates.size() && b.points.size() == b.replicates.size(),
            "replicates of every point");
  const std::optional<Place> in_a = place_at(a.points, bytes);
  const std::optional<Place> in_b = place_at(b.points, bytes);
  if (!in_a || !in_b) return std::nullopt;
  const std::size_t resamples = a.replicates.front().size();
  for (const ReplicatedCurve* curve : {&a, &b})
    for (const std::vector<double>& replicates : curve->replicates)
      KVA_CHECK(replicates.size() == resamples, "replicates of one bootstrap");

  const auto loss = [&](const ReplicatedCurve& curve, const Place& place) {
    return loss_between(curve.points[place.from].loss, curve.points[place.to].loss, place.share, scale);
  };
  const auto replicate = [&](const ReplicatedCurve& curve, const Place& place, std::size_t r) {
    return loss_between(curve.replicates[place.from][r], curve.replicates[place.to][r], place.share, scale);
  };
  std::vector<double> differences(resamples);
  for (std::size_t r = 0; r < resamples; ++r)
    differences[r] = replicate(a, *in_a, r) - replicate(b, *in_b, r);
  return BlockBootstrap::percentile_interval(loss(a, *in_a) - loss(b, *in_b), std::move(differences));
}

std::vector<std::size_t> pareto_front(std::span<const CurvePoint> points) {
  std::vector<std::size_t> front;
  double best = std::numeric_limits<double>::infinity();
  for (const std::size_t i : ordered(points)) {
    if (!std::isfinite(points[i].loss) || points[i].loss >= best) continue;
    best = points[i].loss;
    front.push_back(i);
  }
  return front;
}

}  // namespace kva
