// Sums of packed rows (packed.h), the codes unpacked in registers (included once per SIMD target by Highway's
// foreach_target).
#if defined(KVA_KERNELS_PACKED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVA_KERNELS_PACKED_INL_H_
#undef KVA_KERNELS_PACKED_INL_H_
#else
#define KVA_KERNELS_PACKED_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/packed.h"
#include "kernels/packed_job.h"

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET <= HWY_AVX3
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

// The first `count` values, at least one; the rest is 0.
template <class D>
HWY_INLINE hn::Vec<D> LoadFirst(D d, const float* values, int64_t count) {
  if (count == static_cast<int64_t>(hn::Lanes(d))) return hn::LoadU(d, values);
  HWY_ALIGN float padded[hn::MaxLanes(d)] = {};
  std::copy_n(values, count, padded);
  return hn::Load(d, padded);
}

template <class D>
HWY_INLINE void StoreFirst(D d, hn::Vec<D> v, int64_t count, float* values) {
  if (count == static_cast<int64_t>(hn::Lanes(d))) return hn::StoreU(v, d, values);
  HWY_ALIGN float padded[hn::MaxLanes(d)];
  hn::Store(v, d, padded);
  std::copy_n(padded, count, values);
}

template <int bits>
struct PackedLanes {
  static constexpr int kBits = bits;
  static constexpr int kSlices = bits == 3 ? 8 : 8 / bits;
  static constexpr int64_t kLaneBytes = bits == 3 ? 3 : 1;
  // Vectors of a row, and left rows, whose sums stay in registers together: slices of one vector of lanes, or
  // all slices of several.
  static constexpr int kVectors = kRegisters == 16 ? (bits == 3 ? 4 : 2) : (bits == 3 ? 8 : 4);
  static constexpr int kSlicesAtOnce = std::min(kSlices, kVectors);
  static constexpr int kLoads = kVectors / kSlicesAtOnce;
  static constexpr int kMostLeft = bits != 3 ? 4 : (kRegisters == 16 ? 2 : 3);

  // A vector of lanes. plane: lanes of the block, the distance of a three-byte lane's bytes.
  template <class D>
  static HWY_INLINE hn::Vec<hn::RebindToSigned<D>> load(D, const uint8_t* lanes, int64_t plane) {
    const hn::RebindToSigned<D> words;
    const hn::Rebind<uint8_t, D> bytes;
    const auto low = hn::PromoteTo(words, hn::LoadU(bytes, lanes));
    if constexpr (bits == 3) {
      const auto middle = hn::PromoteTo(words, hn::LoadU(bytes, lanes + plane));
      const auto high = hn::PromoteTo(words, hn::LoadU(bytes, lanes + 2 * plane));
      return hn::Or(low, hn::Or(hn::ShiftLeft<8>(middle), hn::ShiftLeft<16>(high)));
    } else {
      return low;
    }
  }
};

// Codes that are numbers themselves.
template <int bits>
struct Codes : PackedLanes<bits> {
  // What turns the j-th slice, as it comes out of a lane, into codes. Exact.
  static constexpr float unit(int j) { return 1.0f / static_cast<float>(1 << (bits * j)); }

  // The j-th slice's codes over unit(j).
  template <class D>
  HWY_INLINE hn::Vec<D> slice(D d, hn::Vec<hn::RebindToSigned<D>> lanes, int j) const {
    const hn::RebindToSigned<D> words;
    if constexpr (PackedLanes<bits>::kSlices > 1)
      lanes = hn::And(lanes, hn::Set(words, ((1 << bits) - 1) << (bits * j)));
    return hn::ConvertTo(d, lanes);
  }
};

// Codes that stand for levels. Up to 16 of those stay in registers, where the target can look up in them.
template <int bits, class D>
struct Levels : PackedLanes<bits> {
#if HWY_TARGET <= HWY_AVX2
  static constexpr bool kInRegisters = bits <= 4;
#else
  static constexpr bool kInRegisters = false;
#endif
  static constexpr bool kTwo = (1 << bits) > static_cast<int>(hn::MaxLanes(D()));

  static constexpr float unit(int) { return 1.0f; }

  Levels(D d, const float* levels_) : levels(levels_) {
    HWY_ALIGN float padded[2 * hn::MaxLanes(d)] = {};
    std::copy_n(levels, std::min<int64_t>(1 << bits, 2 * static_cast<int64_t>(hn::Lanes(d))), padded);
    low = hn::Load(d, padded);
    high = hn::Load(d, padded + hn::Lanes(d));
  }

  HWY_INLINE hn::Vec<D> slice(D d, hn::Vec<hn::RebindToSigned<D>> lanes, int j) const {
    const hn::RebindToSigned<D> words;
    const auto places = hn::And(hn::ShiftRightSame(lanes, bits * j), hn::Set(words, (1 << bits) - 1));
    if constexpr (!kInRegisters) {
      return hn::GatherIndex(d, levels, places);
    } else if constexpr (kTwo) {
      const auto last = hn::Set(words, static_cast<int32_t>(hn::Lanes(d)) - 1);
      const auto indices = hn::IndicesFromVec(d, hn::And(places, last));
      return hn::IfThenElse(hn::RebindMask(d, hn::Gt(places, last)), hn::TableLookupLanes(high, indices),
                            hn::TableLookupLanes(low, indices));
    } else {
      return hn::TableLookupLanes(low, hn::IndicesFromVec(d, places));
    }
  }

  const float* levels;
  hn::Vec<D> low;
  hn::Vec<D> high;
};

// Calls body(Codes<bits>() or Levels<bits>()) for the page's.
template <int bits, class D, class Body>
HWY_INLINE void WithLevels(D d, const PackedPage& page, const Body& body) {
  if (page.levels) return body(Levels<bits, D>(d, page.levels));
  body(Codes<bits>());
}

template <class D, class Body>
HWY_INLINE void WithCodes(D d, const PackedPage& page, const Body& body) {
  switch (page.bits) {
    case 2: return WithLevels<2>(d, page, body);
    case 3: return WithLevels<3>(d, page, body);
    case 4: return WithLevels<4>(d, page, body);
    default: return WithLevels<8>(d, page, body);
  }
}

// How many of the left rows that remain are taken together next: not a last one on its own, which would
// unpack all the codes for itself.
template <class C>
HWY_INLINE int64_t LeftAtOnce(int64_t remaining) {
  constexpr int64_t kMost = C::kMostLeft;
  return remaining == kMost + 1 ? (remaining + 1) / 2 : std::min(remaining, kMost);
}

// Some columns of a matrix: vectors of lanes from `lane` of the row on, and of each lane the slices from
// first_slice on. plane: lanes of the block.
struct Columns {
  int64_t lane = 0;
  int64_t plane = PackedShape::kLanes;
  int first_slice = 0;
};

// Rows [first, first + count) and their weights: by left row and row, and also by group of columns where
// scales are per row and there are several groups. Where scales are per column, of the rows' group:
struct WeightedRows {
  int64_t first = 0;
  int64_t count = 0;
  const float* weights = nullptr;  // of row `first`
  int64_t left_stride = 0;
  int64_t group_stride = 0;
  const float* scales = nullptr;  // by column
  const float* zeros = nullptr;   // by column
  const float* totals = nullptr;  // of the weights of a left row
};

// sums += weighted columns of `count` rows; vector v is weighted by the numbers at weights + by[v] where
// kGrouped. row, weights: of the first row.
template <class C, int kLeft, int kLoads, bool kGrouped, class D, int kVectors>
HWY_INLINE void SumRows(D d, const C& codes, const uint8_t* HWY_RESTRICT row, int64_t row_bytes,
                        const Columns& columns, int64_t count, const float* HWY_RESTRICT weights,
                        int64_t left_stride, const int64_t (&by)[kVectors],
                        hn::Vec<D> (&sums)[kLeft][kVectors]) {
  constexpr int kSlices = kVectors / kLoads;
  const int64_t step = static_cast<int64_t>(hn::Lanes(d));
  const int64_t in_block = columns.lane % PackedShape::kLanes;
  row += (columns.lane - in_block) * C::kLaneBytes + in_block;
  for (int64_t r = 0; r < count; ++r, row += row_bytes) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v += kSlices) {
      const auto lanes = C::load(d, row + v / kSlices * step, columns.plane);
#pragma GCC unroll 8
      for (int j = 0; j < kSlices; ++j) {
        const auto values = codes.slice(d, lanes, columns.first_slice + j);
#pragma GCC unroll 4
        for (int q = 0; q < kLeft; ++q) {
          const float weight = weights[(kGrouped ? by[v + j] : 0) + q * left_stride + r];
          sums[q][v + j] = hn::MulAdd(hn::Set(d, weight), values, sums[q][v + j]);
        }
      }
    }
  }
}

// Adds the weighted sums of kLoads vectors of lanes to kLeft rows of out, from row `first` on.
template <class C, int kLeft, int kLoads, bool kGrouped, class D>
HWY_INLINE void SumColumns(D d, const C& codes, const PackedJob& job, const Columns& columns,
                           const WeightedRows& of, int64_t first, MatView<float> out) {
  constexpr int kVectors = kLoads * C::kSlicesAtOnce;
  const int64_t step = static_cast<int64_t>(hn::Lanes(d));
  int64_t column[kVectors], count[kVectors], by[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const int64_t lane = columns.lane + v / C::kSlicesAtOnce * step;
    const int64_t block = lane / PackedShape::kLanes;
    const int64_t in_block = lane % PackedShape::kLanes;
    const int slice = columns.first_slice + v % C::kSlicesAtOnce;
    column[v] = block * PackedShape::kLanes * C::kSlices + slice * columns.plane + in_block;
    count[v] = std::clamp<int64_t>(std::min(columns.plane - in_block, job.cols - column[v]), 0, step);
    // An empty slice is weighted by the last group; nobody reads its sums.
    by[v] = kGrouped ? std::min(column[v] / job.group, job.groups - 1) * of.group_stride : 0;
  }
  hn::Vec<D> sums[kLeft][kVectors];
#pragma GCC unroll 4
  for (int q = 0; q < kLeft; ++q) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sums[q][v] = hn::Zero(d);
  }
  // Only a block that is not full is read past its end.
  const int64_t front = columns.plane == PackedShape::kLanes
                            ? of.count
                            : std::clamp<int64_t>(job.split - of.first, 0, of.count);
  const float* weights = of.weights + first * of.left_stride;
  SumRows<C, kLeft, kLoads, kGrouped>(d, codes, job.front + of.first * job.row_bytes, job.row_bytes, columns,
                                      front, weights, of.left_stride, by, sums);
  if (front < of.count)
    SumRows<C, kLeft, kLoads, kGrouped>(d, codes, job.row(of.first + front), job.row_bytes, columns,
                                        of.count - front, weights + front, of.left_stride, by, sums);
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    if (count[v] == 0) continue;
    auto scale = hn::Set(d, C::unit(columns.first_slice + v % C::kSlicesAtOnce));
    auto zero = hn::Zero(d);
    if (of.totals) {
      scale = hn::Mul(scale, LoadFirst(d, of.scales + column[v], count[v]));
      zero = LoadFirst(d, of.zeros + column[v], count[v]);
    }
#pragma GCC unroll 4
    for (int q = 0; q < kLeft; ++q) {
      float* target = out.row(first + q) + column[v];
      auto sum = hn::MulAdd(sums[q][v], scale, LoadFirst(d, target, count[v]));
      if (of.totals) sum = hn::MulAdd(hn::Set(d, of.totals[first + q]), zero, sum);
      StoreFirst(d, sum, count[v], target);
    }
  }
}

// Adds the weighted sums of all columns to kLeft rows of out, from row `first` on.
template <class C, int kLeft, bool kGrouped, class D>
void SumBlocks(D d, const C& codes, const PackedJob& job, const WeightedRows& of, int64_t first,
               MatView<float> out) {
  const int64_t step = static_cast<int64_t>(hn::Lanes(d));
  const int64_t full = job.shape.full_blocks * PackedShape::kLanes;
  for (int slice = 0; slice < C::kSlices; slice += C::kSlicesAtOnce) {
    int64_t lane = 0;
    for (; lane + C::kLoads * step <= full; lane += C::kLoads * step)
      SumColumns<C, kLeft, C::kLoads, kGrouped>(d, codes, job, {lane, PackedShape::kLanes, slice}, of, first,
                                                out);
    for (; lane < full + job.shape.tail_lanes; lane += step) {
      const int64_t plane = lane < full ? PackedShape::kLanes : job.shape.tail_lanes;
      SumColumns<C, kLeft, 1, kGrouped>(d, codes, job, {lane, plane, slice}, of, first, out);
    }
  }
}

// Adds the weighted sums of all columns to out.
template <class C, bool kGrouped, class D>
HWY_INLINE void Sums(D d, const C& codes, const PackedJob& job, const WeightedRows& of, MatView<float> out) {
  for (int64_t first = 0; first < out.rows;) {
    const int64_t count = LeftAtOnce<C>(out.rows - first);
    if (count == 1) SumBlocks<C, 1, kGrouped>(d, codes, job, of, first, out);
    if (count == 2) SumBlocks<C, 2, kGrouped>(d, codes, job, of, first, out);
    if constexpr (C::kMostLeft >= 3) {
      if (count == 3) SumBlocks<C, 3, kGrouped>(d, codes, job, of, first, out);
    }
    if constexpr (C::kMostLeft == 4) {
      if (count == 4) SumBlocks<C, 4, kGrouped>(d, codes, job, of, first, out);
    }
    first += count;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
