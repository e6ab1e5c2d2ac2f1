#include "kernels/lookup.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/lookup.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Levels by place, for any number of them.
struct GatherLevels {
  const float* levels;

  template <class D>
  HWY_INLINE hn::Vec<D> at(D d, hn::Vec<hn::RebindToSigned<D>> places) const {
    return hn::GatherIndex(d, levels, places);
  }
};

#if HWY_TARGET <= HWY_AVX2
#define KVA_PERMUTED_LEVELS 1
// Up to 16 levels stay in registers: one, or two that are chosen between.
template <class D>
struct PermutedLevels {
  static constexpr int kMost = 16;
  static constexpr bool kTwo = hn::MaxLanes(D()) < kMost;

  PermutedLevels(D d, const float* levels, int count) {
    HWY_ALIGN float padded[2 * kMost] = {};
    std::copy_n(levels, count, padded);
    low = hn::Load(d, padded);
    if constexpr (kTwo) high = hn::Load(d, padded + hn::Lanes(d));
  }

  HWY_INLINE hn::Vec<D> at(D d, hn::Vec<hn::RebindToSigned<D>> places) const {
    const hn::RebindToSigned<D> words;
    if constexpr (kTwo) {
      const auto last = hn::Set(words, static_cast<int32_t>(hn::Lanes(d)) - 1);
      const auto indices = hn::IndicesFromVec(d, hn::And(places, last));
      const auto in_high = hn::RebindMask(d, hn::Gt(places, last));
      return hn::IfThenElse(in_high, hn::TableLookupLanes(high, indices), hn::TableLookupLanes(low, indices));
    } else {
      return hn::TableLookupLanes(low, hn::IndicesFromVec(d, places));
    }
  }

  hn::Vec<D> low;
  hn::Vec<D> high;
};
#endif

// One row; scale_at(d, c) and offset_at(d, c) give vectors of tag d for the columns from c on.
template <class D, class Levels, class Scale, class Offset>
HWY_INLINE void LookupRow(D d, const uint8_t* HWY_RESTRICT codes, const Levels& levels,
                          const GatherLevels& gather, int64_t count, const Scale& scale_at,
                          const Offset& offset_at, float* HWY_RESTRICT row) {
  const auto step = [&](auto tag, const auto& from, int64_t c) HWY_ATTR {
    const hn::RebindToSigned<decltype(tag)> places;
    const hn::Rebind<uint8_t, decltype(tag)> bytes;
    const auto level = from.at(tag, hn::PromoteTo(places, hn::LoadU(bytes, codes + c)));
    hn::StoreU(hn::MulAdd(scale_at(tag, c), level, offset_at(tag, c)), tag, row + c);
  };
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t c = 0;
  for (; c + lanes <= count; c += lanes) step(d, levels, c);
  for (; c < count; ++c) step(hn::CappedTag<float, 1>(), gather, c);
}

template <class D, class Levels>
HWY_INLINE void LookupRows(D d, const uint8_t* codes, const Levels& levels, const GatherLevels& gather,
                           bool by_token, const float* scales, const float* offsets, MatView<float> rows) {
  for (int64_t t = 0; t < rows.rows; ++t) {
    const uint8_t* of_row = codes + t * rows.cols;
    if (by_token) {
      LookupRow(
          d, of_row, levels, gather, rows.cols,
          [&](auto tag, int64_t) HWY_ATTR { return hn::Set(tag, scales[t]); },
          [&](auto tag, int64_t) HWY_ATTR { return hn::Set(tag, offsets[t]); }, rows.row(t));
    } else {
      LookupRow(
          d, of_row, levels, gather, rows.cols,
          [&](auto tag, int64_t c) HWY_ATTR { return hn::LoadU(tag, scales + c); },
          [&](auto tag, int64_t c) HWY_ATTR { return hn::LoadU(tag, offsets + c); }, rows.row(t));
    }
  }
}

void Lookup(const uint8_t* codes, const float* levels, int count, bool by_token, const float* scales,
            const float* offsets, MatView<float> rows) {
  const hn::ScalableTag<float> d;
  const GatherLevels gather{levels};
#if KVA_PERMUTED_LEVELS
  using Permuted = PermutedLevels<decltype(d)>;
  if (count <= Permuted::kMost)
    return LookupRows(d, codes, Permuted(d, levels, count), gather, by_token, scales, offsets, rows);
#else
  (void)count;
#endif
  LookupRows(d, codes, gather, gather, by_token, scales, offsets, rows);
}

#undef KVA_PERMUTED_LEVELS

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {

HWY_EXPORT(Lookup);

void lookup_levels(const uint8_t* codes, std::span<const float> levels, ScaleAxis axis, const float* scales,
                   const float* offsets, MatView<float> rows) {
  HWY_DYNAMIC_DISPATCH(Lookup)
  (codes, levels.data(), static_cast<int>(levels.size()), axis == ScaleAxis::kToken, scales, offsets, rows);
}

}  // namespace kva
#endif  // HWY_ONCE
