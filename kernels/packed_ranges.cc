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

// The largest magnitude of what it was given, as bits: those order as magnitudes do, with NaN over all.
template <class D>
class Magnitude {
 public:
  explicit HWY_INLINE Magnitude(D) : largest_(hn::Zero(Words())) {}

  HWY_INLINE void take(hn::Vec<D> values) {
    const Words words;
    largest_ = hn::Max(largest_, hn::And(hn::BitCast(words, values), hn::Set(words, 0x7fffffff)));
  }
  HWY_INLINE bool within(float most) const {
    const D d;
    return hn::AllTrue(d, hn::Le(hn::BitCast(d, largest_), hn::Set(d, most)));
  }

 private:
  using Words = hn::RebindToSigned<D>;
  hn::Vec<Words> largest_;
};

bool AllWithin(MatView<const float> rows, float most) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  Magnitude magnitude(d);
  bool all = true;
  for (int64_t t = 0; t < rows.rows; ++t) {
    const float* row = rows.row(t);
    int64_t c = 0;
    for (; c + lanes <= rows.cols; c += lanes) magnitude.take(hn::LoadU(d, row + c));
    for (; c < rows.cols; ++c) all &= std::abs(row[c]) <= most;
  }
  return all && magnitude.within(most);
}

// The range of what it was given, and in passing the magnitude.
template <class D>
struct Range {
  explicit HWY_INLINE Range(D d)
      : low(hn::Set(d, std::numeric_limits<float>::infinity())),
        high(hn::Set(d, -std::numeric_limits<float>::infinity())) {}

  // Columns [c, c + lanes) of a row, without those that are kept.
  HWY_INLINE void take(D d, const float* row, const uint8_t* kept, int64_t c, Magnitude<D>& magnitude) {
    const auto values = hn::LoadU(d, row + c);
    magnitude.take(values);
    if (!kept) {
      low = hn::Min(low, values);
      high = hn::Max(high, values);
      return;
    }
    const auto is_kept = IsKept(d, kept + c);
    low = hn::IfThenElse(is_kept, low, hn::Min(low, values));
    high = hn::IfThenElse(is_kept, high, hn::Max(high, values));
  }

  hn::Vec<D> low, high;
};

// Groups along rows; what of a row no vector covers is taken number by number.
class RowRanges {
 public:
  RowRanges(MatView<const float> rows, int64_t group, const uint8_t* kept)
      : rows_(rows), group_(group), kept_(kept) {}

  bool find(float most, float* low, float* high) {
    const D d;
    Magnitude magnitude(d);
    const auto smaller = [](auto a, auto b) HWY_ATTR { return hn::Min(a, b); };
    const auto larger = [](auto a, auto b) HWY_ATTR { return hn::Max(a, b); };
    int64_t t = 0;
    if (group_ >= rows_.cols && rows_.cols % static_cast<int64_t>(hn::Lanes(d)) == 0) {
      for (; t + 4 <= rows_.rows; t += 4) {
        Range<D> a(d), b(d), c(d), e(d);
        for (int64_t at = 0; at < rows_.cols; at += static_cast<int64_t>(hn::Lanes(d))) {
          a.take(d, rows_.row(t), kept(t), at, magnitude);
          b.take(d, rows_.row(t + 1), kept(t + 1), at, magnitude);
          c.take(d, rows_.row(t + 2), kept(t + 2), at, magnitude);
          e.take(d, rows_.row(t + 3), kept(t + 3), at, magnitude);
        }
        ReduceFour(d, a.low, b.low, c.low, e.low, smaller, low + t);
        ReduceFour(d, a.high, b.high, c.high, e.high, larger, high + t);
      }
    }
    low += t;  // one group a row so far
    high += t;
    bool within = true;
    for (; t < rows_.rows; ++t)
      for (int64_t first = 0; first < rows_.cols; first += group_) {
        const int64_t last = std::min(rows_.cols, first + group_);
        const auto range = of(t, first, last, magnitude);
        *low = hn::GetLane(hn::MinOfLanes(d, range.low));
        *high = hn::GetLane(hn::MaxOfLanes(d, range.high));
        within &= take_rest(t, first, last, most, *low++, *high++);
      }
    return within && magnitude.within(most);
  }

 private:
  using D = hn::CappedTag<float, 16>;

  const uint8_t* kept(int64_t t) const { return kept_ ? kept_ + t * rows_.cols : nullptr; }

  // The whole vectors of the columns [first, last), in lanes.
  HWY_INLINE Range<D> of(int64_t t, int64_t first, int64_t last, Magnitude<D>& magnitude) const {
    const D d;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    Range<D> range(d);
    for (int64_t c = first; c + lanes <= last; c += lanes) range.take(d, rows_.row(t), kept(t), c, magnitude);
    return range;
  }

  // What is behind those.
  bool take_rest(int64_t t, int64_t first, int64_t last, float most, float& low, float& high) const {
    const auto lanes = static_cast<int64_t>(hn::Lanes(D()));
    const float* row = rows_.row(t);
    const uint8_t* is_kept = kept(t);
    bool within = true;
    for (int64_t c = last - (last - first) % lanes; c < last; ++c) {
      within &= std::abs(row[c]) <= most;
      if (is_kept && is_kept[c]) continue;
      low = std::min(low, row[c]);
      high = std::max(high, row[c]);
    }
    return within;
  }

  MatView<const float> rows_;
  int64_t group_;
  const uint8_t* kept_;
};

// Groups along columns.
bool ColumnRanges(MatView<const float> rows, int64_t group, const uint8_t* kept, float most, float* low,
                  float* high) {
  bool within = true;
  for (int64_t first = 0; first < rows.rows; first += group, low += rows.cols, high += rows.cols) {
    const int64_t last = std::min(rows.rows, first + group);
    for_columns(0, rows.cols, [&](auto d, int64_t c) HWY_ATTR {
      Range<decltype(d)> range(d);
      Magnitude<decltype(d)> magnitude(d);
      for (int64_t t = first; t < last; ++t)
        range.take(d, rows.row(t), kept ? kept + t * rows.cols : nullptr, c, magnitude);
      hn::StoreU(range.low, d, low + c);
      hn::StoreU(range.high, d, high + c);
      within &= magnitude.within(most);
    });
  }
  return within;
}

bool GroupRanges(MatView<const float> rows, const PackedPage& shape, const uint8_t* kept, float most,
                 float* low, float* high) {
  if (shape.axis == ScaleAxis::kChannel) return ColumnRanges(rows, shape.group, kept, most, low, high);
  return RowRanges(rows, shape.group, kept).find(most, low, high);
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

bool group_ranges(MatView<const float> rows, const PackedPage& shape, const uint8_t* kept, float most,
                  float* low, float* high) {
  return HWY_DYNAMIC_DISPATCH(GroupRanges)(rows, shape, kept, most, low, high);
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
