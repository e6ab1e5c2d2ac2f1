#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/packed_encode.h"
#include "kernels/scale_math.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/packed_ranges.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/packed_encode-inl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

bool AllWithin(MatView<const float> rows, float most) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> words;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  // Magnitudes' bits order as they do, with NaN over all.
  const auto magnitude = hn::Set(words, 0x7fffffff);
  auto largest = hn::Zero(words);
  bool all = true;
  for (int64_t t = 0; t < rows.rows; ++t) {
    const float* row = rows.row(t);
    int64_t c = 0;
    for (; c + lanes <= rows.cols; c += lanes)
      largest = hn::Max(largest, hn::And(hn::BitCast(words, hn::LoadU(d, row + c)), magnitude));
    for (; c < rows.cols; ++c) all &= std::abs(row[c]) <= most;
  }
  return all && hn::AllTrue(d, hn::Le(hn::BitCast(d, largest), hn::Set(d, most)));
}

// The range of what it was given.
template <class D>
struct Range {
  explicit HWY_INLINE Range(D d)
      : low(hn::Set(d, std::numeric_limits<float>::infinity())),
        high(hn::Set(d, -std::numeric_limits<float>::infinity())) {}

  // Columns [c, c + lanes) of a row, without those that are kept.
  HWY_INLINE void take(D d, const float* row, const uint8_t* kept, int64_t c) {
    const auto values = hn::LoadU(d, row + c);
    if (!kept) {
      low = hn::Min(low, values);
      high = hn::Max(high, values);
      return;
    }
    const auto is_kept = IsKept(d, kept + c);
    low = hn::IfThenElse(is_kept, low, hn::Min(low, values));
    high = hn::IfThenElse(is_kept, high, hn::Max(high, values));
  }
  HWY_INLINE void take(float value) {
    const D d;
    low = hn::Min(low, hn::Set(d, value));
    high = hn::Max(high, hn::Set(d, value));
  }

  hn::Vec<D> low, high;
};

// The range of the columns [first, last) of a row, in lanes.
template <class D>
HWY_INLINE Range<D> RangeOf(D d, const float* row, const uint8_t* kept, int64_t first, int64_t last) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  Range<D> range(d);
  int64_t c = first;
  for (; c + lanes <= last; c += lanes) range.take(d, row, kept, c);
  for (; c < last; ++c)
    if (!kept || !kept[c]) range.take(row[c]);
  return range;
}

// Groups along rows.
void RowRanges(MatView<const float> rows, int64_t group, const uint8_t* kept, float* low, float* high) {
  const hn::CappedTag<float, 16> d;
  const auto smaller = [](auto a, auto b) HWY_ATTR { return hn::Min(a, b); };
  const auto larger = [](auto a, auto b) HWY_ATTR { return hn::Max(a, b); };
  int64_t t = 0;
  if (group >= rows.cols && !kept) {
    for (; t + 4 <= rows.rows; t += 4) {
      const auto a = RangeOf(d, rows.row(t), nullptr, 0, rows.cols);
      const auto b = RangeOf(d, rows.row(t + 1), nullptr, 0, rows.cols);
      const auto c = RangeOf(d, rows.row(t + 2), nullptr, 0, rows.cols);
      const auto e = RangeOf(d, rows.row(t + 3), nullptr, 0, rows.cols);
      ReduceFour(d, a.low, b.low, c.low, e.low, smaller, low + t);
      ReduceFour(d, a.high, b.high, c.high, e.high, larger, high + t);
    }
  }
  low += t;  // one group a row so far
  high += t;
  for (; t < rows.rows; ++t)
    for (int64_t first = 0; first < rows.cols; first += group) {
      const auto range = RangeOf(d, rows.row(t), kept ? kept + t * rows.cols : nullptr, first,
                                 std::min(rows.cols, first + group));
      *low++ = hn::GetLane(hn::MinOfLanes(d, range.low));
      *high++ = hn::GetLane(hn::MaxOfLanes(d, range.high));
    }
}

// Groups along columns.
void ColumnRanges(MatView<const float> rows, int64_t group, const uint8_t* kept, float* low, float* high) {
  for (int64_t first = 0; first < rows.rows; first += group, low += rows.cols, high += rows.cols) {
    const int64_t last = std::min(rows.rows, first + group);
    for_columns(0, rows.cols, [&](auto d, int64_t c) HWY_ATTR {
      Range<decltype(d)> range(d);
      for (int64_t t = first; t < last; ++t)
        range.take(d, rows.row(t), kept ? kept + t * rows.cols : nullptr, c);
      hn::StoreU(range.low, d, low + c);
      hn::StoreU(range.high, d, high + c);
    });
  }
}

void GroupRanges(MatView<const float> rows, const PackedPage& shape, const uint8_t* kept, float* low,
                 float* high) {
  if (shape.axis == ScaleAxis::kChannel) return ColumnRanges(rows, shape.group, kept, low, high);
  RowRanges(rows, shape.group, kept, low, high);
}

// Returns how many ranges' scales it wrote, from the front.
int64_t RangeScales(const float* HWY_RESTRICT low, const float* HWY_RESTRICT high, int64_t count,
                    double steps, uint16_t* HWY_RESTRICT scales, uint16_t* HWY_RESTRICT zeros) {
  int64_t i = 0;
  if constexpr (kSimdHalf && HWY_TARGET != HWY_SCALAR) {
    const hn::ScalableTag<double> d;
    const hn::Rebind<float, decltype(d)> f;
    const hn::Rebind<int32_t, decltype(d)> words;
    const hn::Rebind<uint16_t, decltype(d)> bits;
    const hn::Rebind<hwy::float16_t, decltype(d)> half;
    for (; i + static_cast<int64_t>(hn::Lanes(d)) <= count; i += static_cast<int64_t>(hn::Lanes(d))) {
      auto from = hn::LoadU(f, low + i);
      auto to = hn::LoadU(f, high + i);
      const auto some = hn::Le(from, to);
      from = hn::Add(hn::IfThenElseZero(some, from), hn::Zero(f));  // -0 becomes 0, as in stored_scale()
      to = hn::IfThenElseZero(some, to);
      auto width = hn::PromoteTo(d, hn::Add(hn::Max(hn::Neg(from), to), hn::Zero(f)));
      if (zeros) {
        const auto zero = hn::DemoteTo(half, from);
        hn::StoreU(hn::BitCast(bits, zero), bits, zeros + i);
        width = hn::Max(hn::Sub(hn::PromoteTo(d, to), hn::PromoteTo(d, hn::PromoteTo(f, zero))), hn::Zero(d));
      }
      const auto scale = hn::Div(width, hn::Set(d, steps));
      const auto rounded = hn::DemoteTo(half, hn::DemoteTo(f, scale));
      const auto below = hn::Lt(hn::PromoteTo(d, hn::PromoteTo(f, rounded)), scale);
      const auto one_up = hn::DemoteTo(bits, hn::DemoteTo(words, hn::IfThenElseZero(below, hn::Set(d, 1.0))));
      hn::StoreU(hn::Add(hn::BitCast(bits, rounded), one_up), bits, scales + i);
    }
  }
  return i;
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {
namespace {

HWY_EXPORT(AllWithin);
HWY_EXPORT(GroupRanges);
HWY_EXPORT(RangeScales);

}  // namespace

bool all_within(MatView<const float> rows, float most) { return HWY_DYNAMIC_DISPATCH(AllWithin)(rows, most); }

void group_ranges(MatView<const float> rows, const PackedPage& shape, const uint8_t* kept, float* low,
                  float* high) {
  HWY_DYNAMIC_DISPATCH(GroupRanges)(rows, shape, kept, low, high);
}

void range_scales(const float* low, const float* high, int64_t count, int bits, uint16_t* scales,
                  uint16_t* zeros) {
  const double steps = zeros ? (1 << bits) - 1 : (1 << (bits - 1)) - 1;
  for (int64_t i = HWY_DYNAMIC_DISPATCH(RangeScales)(low, high, count, steps, scales, zeros); i < count;
       ++i) {
    const bool some = low[i] <= high[i];
    const StoredScale stored = stored_scale(some ? low[i] : 0.0f, some ? high[i] : 0.0f, bits, !zeros);
    scales[i] = stored.scale;
    if (zeros) zeros[i] = stored.zero;
  }
}

}  // namespace kva
#endif
