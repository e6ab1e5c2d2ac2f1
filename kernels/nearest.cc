#include "kernels/nearest.h"

#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/nearest.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

struct Best {
  float closeness;
  int32_t column;
};

// The best of the lanes and of what `best` holds; of equally good ones the first.
template <class D>
HWY_INLINE void TakeBestLane(D d, hn::Vec<D> closeness, hn::Vec<hn::RebindToSigned<D>> columns, Best& best) {
  const hn::RebindToSigned<D> words;
  HWY_ALIGN float of_lane[hn::MaxLanes(d)];
  HWY_ALIGN int32_t column_of_lane[hn::MaxLanes(d)];
  hn::Store(closeness, d, of_lane);
  hn::Store(columns, words, column_of_lane);
  for (size_t i = 0; i < hn::Lanes(d); ++i) {
    const Best other{of_lane[i], column_of_lane[i]};
    if (other.closeness > best.closeness || (other.closeness == best.closeness && other.column < best.column))
      best = other;
  }
}

// Columns [first, first + whole vectors) of d's lanes; `best` holds those before.
template <class D>
HWY_INLINE int64_t NearestOfVectors(D d, const float* HWY_RESTRICT point, MatView<const float> centroids,
                                    const float* HWY_RESTRICT biases, int64_t first, Best& best) {
  const hn::RebindToSigned<D> words;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  if (first + lanes > centroids.cols) return first;
  auto most = hn::Set(d, best.closeness);
  auto columns = hn::Set(words, best.column);
  auto at = hn::Iota(words, static_cast<int32_t>(first));
  const auto step = hn::Set(words, static_cast<int32_t>(lanes));
  for (; first + lanes <= centroids.cols; first += lanes, at = hn::Add(at, step)) {
    auto closeness = hn::LoadU(d, biases + first);
    for (int64_t i = 0; i < centroids.rows; ++i)
      closeness = hn::MulAdd(hn::Set(d, point[i]), hn::LoadU(d, centroids.row(i) + first), closeness);
    const auto closer = hn::Gt(closeness, most);
    most = hn::IfThenElse(closer, closeness, most);
    columns = hn::IfThenElse(hn::RebindMask(words, closer), at, columns);
  }
  TakeBestLane(d, most, columns, best);
  return first;
}

void NearestColumns(MatView<const float> points, MatView<const float> centroids, const float* biases,
                    int32_t* nearest, float* closeness) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  for (int64_t p = 0; p < points.rows; ++p) {
    const float* point = points.row(p);
    // Closeness that is not a number is never larger than this, and leaves the first column.
    Best best{hwy::LowestValue<float>(), 0};
    const int64_t rest = NearestOfVectors(d, point, centroids, biases, 0, best);
    NearestOfVectors(one, point, centroids, biases, rest, best);
    nearest[p] = best.column;
    closeness[p] = best.closeness;
  }
}

// Columns [first, first + whole vectors) of d's lanes; `best` holds those before, its closeness less the
// distance.
template <class D>
HWY_INLINE int64_t LeastOfVectors(D d, const float* HWY_RESTRICT dots, const float* HWY_RESTRICT squares,
                                  int64_t first, int64_t count, Best& best) {
  const hn::RebindToSigned<D> words;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  if (first + lanes > count) return first;
  auto most = hn::Set(d, best.closeness);
  auto columns = hn::Set(words, best.column);
  auto at = hn::Iota(words, static_cast<int32_t>(first));
  const auto step = hn::Set(words, static_cast<int32_t>(lanes));
  for (; first + lanes <= count; first += lanes, at = hn::Add(at, step)) {
    const auto dot = hn::LoadU(d, dots + first);
    const auto closeness = hn::Sub(hn::Add(dot, dot), hn::LoadU(d, squares + first));
    const auto closer = hn::Gt(closeness, most);
    most = hn::IfThenElse(closer, closeness, most);
    columns = hn::IfThenElse(hn::RebindMask(words, closer), at, columns);
  }
  TakeBestLane(d, most, columns, best);
  return first;
}

int64_t LeastDistance(const float* dots, const float* squares, int64_t count) {
  Best best{-std::numeric_limits<float>::infinity(), 0};
  const int64_t rest = LeastOfVectors(hn::ScalableTag<float>(), dots, squares, 0, count, best);
  LeastOfVectors(hn::CappedTag<float, 1>(), dots, squares, rest, count, best);
  return best.column;
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {

HWY_EXPORT(LeastDistance);
HWY_EXPORT(NearestColumns);

int64_t least_distance(const float* dots, const float* squares, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(LeastDistance)(dots, squares, count);
}

void nearest_columns(MatView<const float> points, MatView<const float> centroids, const float* biases,
                     int32_t* nearest, float* closeness) {
  KVA_CHECK(points.cols == centroids.rows && centroids.cols >= 1, "points and centroids of one width");
  HWY_DYNAMIC_DISPATCH(NearestColumns)(points, centroids, biases, nearest, closeness);
}

}  // namespace kva
#endif  // HWY_ONCE
