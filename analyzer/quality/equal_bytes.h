// Methods compared at equal bytes: a loss (lower is better: mean KL, the logarithm of the perplexity ratio,
// 1 - top-1 agreement) as a function of the bytes a cache holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "analyzer/estimate.h"

namespace kva {

struct CurvePoint {
  int64_t bytes = 0;
  double loss = 0.0;
};

enum class LossScale {
  kLinear,
  // ln of the loss is interpolated: KL falls about exponentially with the bits a value has. A segment with an
  // end at or below 0 is linear.
  kLog,
};

// The curve through `points` (any order; of several at the same bytes the lowest loss counts) at `bytes`,
// linear in bytes between its neighbours. A point's own bytes give its own loss. nullopt below the smallest
// and above the largest bytes: curves are not extrapolated. NaN between points where one is NaN.
std::optional<double> loss_at_bytes(std::span<const CurvePoint> points, int64_t bytes, LossScale scale);

// A curve with the replicates of every point's loss, all of one bootstrap: [points][resamples].
struct ReplicatedCurve {
  std::vector<CurvePoint> points;
  std::vector<std::vector<double>> replicates;
};

// Loss of a less loss of b at `bytes`, with the percentile interval of the same difference of replicates;
// which points are neighbours is decided by the losses, not again by each replicate. nullopt where a curve
// does not reach `bytes`.
std::optional<Estimate> loss_difference_at_bytes(const ReplicatedCurve& a, const ReplicatedCurve& b,
                                                 int64_t bytes, LossScale scale);

// Indices of the points that no other beats (no more bytes and no more loss, and less of one), by ascending
// bytes. Of equal points the first is kept; a loss of NaN or inf is never on the front.
std::vector<std::size_t> pareto_front(std::span<const CurvePoint> points);

}  // namespace kva
