// Products with packed rows (packed.h) before scales are applied: dot products with queries and weighted
// sums, the codes unpacked in registers (included once per SIMD target by Highway's foreach_target).
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

#include "kernels/packed_job.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kRows = 4;  // packed rows taken together, so that their sums share one reduction
#if HWY_TARGET <= HWY_AVX3
constexpr int kMostQueries = 4;  // whose sums stay in registers
#else
constexpr int kMostQueries = 3;
#endif
constexpr int kColumns = 4;  // vectors of a row whose weighted sums stay in registers

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

  // A vector of lanes. plane: distance of a three-byte lane's bytes.
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

// Dot products of kQueries padded queries with four rows. A padded query has `pad` numbers for each slice,
// zeros behind the slice's channels; times the slice's unit, unless the page comes with slice scales.
template <class C, int kQueries, bool kScaled, class D>
HWY_INLINE void DotRows(D d, const C& codes, const PackedShape& shape, const PackedRows& source,
                        const SliceScales& of, const int64_t (&tokens)[kRows],
                        const float* HWY_RESTRICT queries, int64_t query_stride, int64_t pad,
                        float (&dots)[kQueries][kRows]) {
  const int64_t step = static_cast<int64_t>(hn::Lanes(d));
  const uint8_t* HWY_RESTRICT rows[kRows];
  for (int i = 0; i < kRows; ++i) rows[i] = source.row(tokens[i]);
  hn::Vec<D> sums[kQueries][kRows];
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) sums[q][i] = hn::Zero(d);
  }
  for (int64_t block = 0; block < shape.blocks(); ++block) {
    const int64_t plane = shape.lanes(block);
    for (int64_t lane = 0; lane < plane; lane += step) {
      const int64_t at = block * PackedShape::kLanes * C::kLaneBytes + lane;
      const float* HWY_RESTRICT query = queries + block * C::kSlices * pad + lane;
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) {
        const auto lanes = C::load(d, rows[i] + at, plane);
#pragma GCC unroll 8
        for (int j = 0; j < C::kSlices; ++j) {
          auto values = codes.slice(d, lanes, j);
          if constexpr (kScaled) {
            const int64_t s = tokens[i] * of.stride + block * C::kSlices + j;
            values = hn::MulAdd(values, hn::Set(d, of.scales[s]), hn::Set(d, of.zeros[s]));
          }
#pragma GCC unroll 4
          for (int q = 0; q < kQueries; ++q)
            sums[q][i] = hn::MulAdd(hn::LoadU(d, query + q * query_stride + j * pad), values, sums[q][i]);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) SumFour(d, sums[q][0], sums[q][1], sums[q][2], sums[q][3], dots[q]);
}

// Calls body(constant number of queries, first query) for blocks that cover `queries`.
template <class Body>
HWY_INLINE void for_query_blocks(int64_t queries, const Body& body) {
  for (int64_t first = 0; first < queries;) {
    const int64_t left = queries - first;
    const int64_t count = left == kMostQueries + 1 ? (left + 1) / 2 : std::min<int64_t>(left, kMostQueries);
    if (count == 1) body(std::integral_constant<int, 1>(), first);
    if (count == 2) body(std::integral_constant<int, 2>(), first);
    if (count == 3) body(std::integral_constant<int, 3>(), first);
    if constexpr (kMostQueries == 4) {
      if (count == 4) body(std::integral_constant<int, 4>(), first);
    }
    first += count;
  }
}

// The query as DotRows reads it. by: a factor for each channel, or null.
template <class C, class D>
void PadQuery(D d, const PackedJob& job, const float* query, const float* by, bool units, float* out) {
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t block = 0; block < job.shape.blocks(); ++block) {
    for (int j = 0; j < C::kSlices; ++j, out += job.pad) {
      const int64_t first = job.shape.first_channel(block, j);
      const int64_t count = job.shape.channels(block, j);
      const auto unit = hn::Set(d, units ? C::unit(j) : 1.0f);
      for (int64_t i = 0; i < job.pad; i += step) {
        auto values = hn::Zero(d);
        if (const int64_t some = std::min(step, count - i); some > 0) {
          values = hn::Mul(LoadFirst(d, query + first + i, some), unit);
          if (by) values = hn::Mul(values, LoadFirst(d, by + first + i, some));
        }
        hn::StoreU(values, d, out + i);
      }
    }
  }
}

// Products of padded queries with the tokens [first_token, first_token + scores.cols).
template <class C, bool kScaled, class D>
void Dots(D d, const C& codes, const PackedJob& job, const float* queries, const SliceScales& of,
          int64_t first_token, MatView<float> scores) {
  const int64_t stride = job.slices() * job.pad;
  for_query_blocks(scores.rows, [&](auto block, int64_t first) {
    constexpr int kQueries = decltype(block)::value;
    float dots[kQueries][kRows];
    for (int64_t t = 0; t < scores.cols; t += kRows) {
      // The last row stands in for those that are missing, and their results are dropped.
      int64_t tokens[kRows];
      for (int i = 0; i < kRows; ++i) tokens[i] = first_token + std::min(t + i, scores.cols - 1);
      DotRows<C, kQueries, kScaled>(d, codes, job.shape, job.rows, of, tokens, queries + first * stride,
                                    stride, job.pad, dots);
      const int64_t count = std::min<int64_t>(kRows, scores.cols - t);
      for (int q = 0; q < kQueries; ++q) std::copy_n(dots[q], count, scores.row(first + q) + t);
    }
  });
}

// Some columns of a page: vectors of lanes from `lane` of the row on, and of each lane the slices from
// first_slice on. plane: lanes of the block.
struct Columns {
  int64_t lane = 0;
  int64_t plane = PackedShape::kLanes;
  int first_slice = 0;
};

// sums += weighted columns of rows [first, last), kLoads vectors of lanes with kSlices slices each. row and
// weights: of the row `first`.
template <class C, int kQueries, int kLoads, int kSlices, bool kScaled, class D>
HWY_INLINE void SumRows(D d, const C& codes, const uint8_t* HWY_RESTRICT row, int64_t row_bytes,
                        const Columns& columns, const SliceScales& of, int64_t first, int64_t last,
                        const float* HWY_RESTRICT weights, int64_t weight_stride,
                        hn::Vec<D> (&sums)[kQueries][kLoads * kSlices]) {
  const int64_t step = static_cast<int64_t>(hn::Lanes(d));
  const int64_t in_block = columns.lane % PackedShape::kLanes;
  row += (columns.lane - in_block) * C::kLaneBytes + in_block;
  int64_t scale[kLoads];
  for (int l = 0; l < kLoads; ++l)
    scale[l] = (columns.lane + l * step) / PackedShape::kLanes * C::kSlices + columns.first_slice;
  for (int64_t t = first; t < last; ++t, row += row_bytes) {
#pragma GCC unroll 4
    for (int l = 0; l < kLoads; ++l) {
      const auto lanes = C::load(d, row + l * step, columns.plane);
#pragma GCC unroll 4
      for (int j = 0; j < kSlices; ++j) {
        auto values = codes.slice(d, lanes, columns.first_slice + j);
        if constexpr (kScaled) {
          const int64_t s = t * of.stride + scale[l] + j;
          values = hn::MulAdd(values, hn::Set(d, of.scales[s]), hn::Set(d, of.zeros[s]));
        }
#pragma GCC unroll 4
        for (int q = 0; q < kQueries; ++q) {
          auto& sum = sums[q][l * kSlices + j];
          sum = hn::MulAdd(hn::Set(d, weights[q * weight_stride + t - first]), values, sum);
        }
      }
    }
  }
}

// Adds the weighted sums of kLoads vectors of lanes, kSlices slices each, to kQueries rows of out.
template <class C, int kQueries, int kLoads, bool kScaled, class D>
HWY_INLINE void SumColumns(D d, const C& codes, const PackedJob& job, const Columns& columns,
                           const SliceScales& of, int64_t first_token, MatView<const float> weights,
                           int64_t first, MatView<float> out) {
  constexpr int kSlices = std::min(C::kSlices, kColumns);
  const int64_t step = static_cast<int64_t>(hn::Lanes(d));
  const PackedRows& rows = job.rows;
  const int64_t end = first_token + weights.cols;
  hn::Vec<D> sums[kQueries][kLoads * kSlices];
  for (auto& of_query : sums)
    for (auto& sum : of_query) sum = hn::Zero(d);
  // Only a block that is not full is read past its end.
  const int64_t split = columns.plane == PackedShape::kLanes ? end : std::clamp(rows.split, first_token, end);
  const float* by = weights.row(first);
  SumRows<C, kQueries, kLoads, kSlices, kScaled>(d, codes, rows.front + first_token * rows.row_bytes,
                                                 rows.row_bytes, columns, of, first_token, split, by,
                                                 weights.stride, sums);
  if (split < end)
    SumRows<C, kQueries, kLoads, kSlices, kScaled>(d, codes, rows.row(split), rows.row_bytes, columns, of,
                                                   split, end, by + (split - first_token), weights.stride,
                                                   sums);
  for (int i = 0; i < kLoads * kSlices; ++i) {
    const int64_t lane = columns.lane + i / kSlices * step;
    const int64_t block = lane / PackedShape::kLanes;
    const int64_t in_block = lane % PackedShape::kLanes;
    const int slice = columns.first_slice + i % kSlices;
    const int64_t channel = job.shape.first_channel(block, slice) + in_block;
    const int64_t count = std::clamp<int64_t>(job.shape.channels(block, slice) - in_block, 0, step);
    const auto unit = hn::Set(d, kScaled ? 1.0f : C::unit(slice));
    for (int q = 0; q < kQueries && count > 0; ++q) {
      float* target = out.row(first + q) + channel;
      StoreFirst(d, hn::MulAdd(sums[q][i], unit, LoadFirst(d, target, count)), count, target);
    }
  }
}

// out row q += sum over t of weights(q, t) * row first_token + t: of codes, or of numbers where kScaled.
template <class C, bool kScaled, class D>
void Sums(D d, const C& codes, const PackedJob& job, const SliceScales& of, int64_t first_token,
          MatView<const float> weights, MatView<float> out) {
  constexpr int kSlices = std::min(C::kSlices, kColumns);
  constexpr int kLoads = kColumns / kSlices;
  const int64_t step = static_cast<int64_t>(hn::Lanes(d));
  const int64_t full = job.shape.full_blocks * PackedShape::kLanes;
  for_query_blocks(out.rows, [&](auto queries, int64_t first) {
    constexpr int kQueries = decltype(queries)::value;
    for (int slice = 0; slice < C::kSlices; slice += kSlices) {
      int64_t lane = 0;
      for (; lane + kLoads * step <= full; lane += kLoads * step)
        SumColumns<C, kQueries, kLoads, kScaled>(d, codes, job, {lane, PackedShape::kLanes, slice}, of,
                                                 first_token, weights, first, out);
      for (; lane < full; lane += step)
        SumColumns<C, kQueries, 1, kScaled>(d, codes, job, {lane, PackedShape::kLanes, slice}, of,
                                            first_token, weights, first, out);
      for (; lane < full + job.shape.tail_lanes; lane += step)
        SumColumns<C, kQueries, 1, kScaled>(d, codes, job, {lane, job.shape.tail_lanes, slice}, of,
                                            first_token, weights, first, out);
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
