#include "kernels/packed_whole.h"

#include <hwy/cache_control.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/packed_whole.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/packed-inl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

// Targets without f16 conversions would widen scales one by one; they keep to the tables of packed_cpu.cc.
#if HWY_TARGET == HWY_SCALAR || (HWY_ARCH_X86 && HWY_TARGET > HWY_AVX2)

bool WholeProduct(const PackedPage&, MatView<const float>, bool, float*, MatView<float>) { return false; }

#else

// Three query rows over a page of 64 x 64 numbers are 768 sums of 16 lanes: at two a cycle 384 cycles, the
// floor of this file; all else is to hide behind them. So sums stay in registers over all rows, enough of
// them that none waits for the one before (of short rows several chains, or several rows in one vector), and
// f16 scales are widened where they are used: a pass of its own over them costs as much as 16 rows.

// Of a row in a vector.
constexpr int kLeastLanes = 4;

// A page as its left rows meet it.
struct WholeRows {
  const PackedPage& page;
  PackedShape shape;
  int64_t rows;
  bool scale_by_row;
  const float* weights;  // [left rows, stride], times the rows' scales where those are by row
  int64_t stride;
  // Of each left row: the weighted zeros, or the weights' sum where zeros are by column.
  HWY_ALIGN float constants[4];
};

// Copies a left row's weights, times the rows' scales where those are by row. Returns the lanes of its
// constant.
template <class D>
HWY_INLINE hn::Vec<D> PrepareWeights(D d, const WholeRows& of, const float* weights,
                                     float* HWY_RESTRICT scaled) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const PackedPage& page = of.page;
  const auto middle = hn::Set(d, page.middle());
  auto sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= of.rows; i += lanes) {
    auto weight = hn::LoadU(d, weights + i);
    auto constant = weight;
    if (of.scale_by_row) {
      if (page.zeros) constant = hn::Mul(weight, StoredF16::load(d, page.zeros + i));
      weight = hn::Mul(weight, StoredF16::load(d, page.scales + i));
      if (!page.zeros) constant = hn::Mul(weight, middle);
    }
    hn::StoreU(weight, d, scaled + i);
    sum = hn::Add(sum, constant);
  }
  float rest = 0.0f;
  for (; i < of.rows; ++i) {
    scaled[i] = of.scale_by_row ? weights[i] * StoredF16::one(page.scales + i) : weights[i];
    rest += !of.scale_by_row ? weights[i]
            : page.zeros     ? weights[i] * StoredF16::one(page.zeros + i)
                             : scaled[i] * page.middle();
  }
  return hn::Add(sum, hn::IfThenElseZero(hn::FirstN(d, 1), hn::Set(d, rest)));
}

// Adds the halves of a vector that holds two rows, and stores the columns: times `unit` and their scales, and
// what `constant` adds.
template <int kParts, class D>
HWY_INLINE void StoreColumns(D d, hn::Vec<D> sum, const WholeRows& of, float constant, float unit,
                             int64_t column, bool add, float* HWY_RESTRICT out) {
  if constexpr (kParts > 1) {
    const hn::Half<D> half;
    StoreColumns<kParts / 2>(half, hn::Add(hn::LowerHalf(half, sum), hn::UpperHalf(half, sum)), of, constant,
                             unit, column, add, out);
  } else {
    auto by = hn::Set(d, unit);
    auto plus = hn::Set(d, constant);
    if (!of.scale_by_row) {
      const auto scale = StoredF16::load(d, of.page.scales + column);
      const auto zero = of.page.zeros ? StoredF16::load(d, of.page.zeros + column)
                                      : hn::Mul(scale, hn::Set(d, of.page.middle()));
      by = hn::Mul(by, scale);
      plus = hn::Mul(plus, zero);
    }
    if (add) plus = hn::Add(plus, hn::LoadU(d, out + column));
    hn::StoreU(hn::MulAdd(sum, by, plus), d, out + column);
  }
}

// kLoads vectors of lanes from `lane` on, of each the slices from first_slice on, for kLeft left rows from
// `first` on. A vector holds kParts rows; every kChains-th vector of rows goes to the same sums.
template <class C, int kLeft, int kLoads, int kChains, int kParts, class D>
HWY_INLINE void WholeColumns(D d, const C& codes, const WholeRows& of, int64_t first, int64_t lane,
                             int first_slice, bool add, MatView<float> out) {
  constexpr int kSlices = C::kSlicesAtOnce;
  constexpr int kVectors = kLoads * kSlices;
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  const int64_t plane = of.shape.full_blocks > 0 ? PackedShape::kLanes : of.shape.tail_lanes;
  hn::Vec<D> sums[kChains][kLeft][kVectors];
#pragma GCC unroll 4
  for (int chain = 0; chain < kChains; ++chain)
#pragma GCC unroll 4
    for (int q = 0; q < kLeft; ++q)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[chain][q][v] = hn::Zero(d);

  const hn::RebindToSigned<D> words;
  HWY_ALIGN int32_t spread[hn::MaxLanes(d)] = {};
  if constexpr (kParts > 1)
    for (int64_t i = 0; i < step; ++i) spread[i] = static_cast<int32_t>(i / plane);
  const auto places = hn::IndicesFromVec(d, hn::Load(words, spread));

  const int64_t row_bytes = of.shape.row_bytes();
  const int64_t in_block = lane % PackedShape::kLanes;
  const auto* row =
      reinterpret_cast<const uint8_t*>(of.page.codes) + (lane - in_block) * C::kLaneBytes + in_block;
  const float* weights = of.weights + first * of.stride;
  // The page that comes next is fetched row by row: all at once its lines would keep this one's waiting.
  const bool fetches = of.page.ahead && first == 0 && first_slice == 0;
  const std::byte* ahead = (fetches ? of.page.ahead : of.page.codes) + lane * C::kLaneBytes;
  const auto take = [&](auto& into, int64_t r) HWY_ATTR {
    hwy::Prefetch(ahead + r * row_bytes);
#pragma GCC unroll 8
    for (int load = 0; load < kLoads; ++load) {
      const auto lanes = C::load(d, row + r * row_bytes + load * step, plane);
#pragma GCC unroll 8
      for (int j = 0; j < kSlices; ++j) {
        const auto values = codes.slice(d, lanes, first_slice + j);
#pragma GCC unroll 4
        for (int q = 0; q < kLeft; ++q) {
          const float* weight = weights + q * of.stride + r;
          auto& sum = into[q][load * kSlices + j];
          if constexpr (kParts == 1) {
            sum = hn::MulAdd(hn::Set(d, *weight), values, sum);
          } else {
            sum = hn::MulAdd(hn::TableLookupLanes(hn::LoadU(d, weight), places), values, sum);
          }
        }
      }
    }
  };
  int64_t r = 0;
  for (; r + kChains * kParts <= of.rows; r += kChains * kParts) {
#pragma GCC unroll 4
    for (int chain = 0; chain < kChains; ++chain) take(sums[chain], r + chain * kParts);
  }
  for (; r < of.rows; r += kParts) take(sums[0], r);

#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const int slice = first_slice + v % kSlices;
    const int64_t at = lane + v / kSlices * step;
    const int64_t column = at / PackedShape::kLanes * PackedShape::kLanes * C::kSlices + slice * plane +
                           at % PackedShape::kLanes;
#pragma GCC unroll 4
    for (int q = 0; q < kLeft; ++q) {
      auto sum = sums[0][q][v];
#pragma GCC unroll 4
      for (int chain = 1; chain < kChains; ++chain) sum = hn::Add(sum, sums[chain][q][v]);
      StoreColumns<kParts>(d, sum, of, of.constants[q], C::unit(slice), column, add, out.row(first + q));
    }
  }
}

// All columns, for kLeft left rows from `first` on.
template <class C, int kLeft, class D>
void WholeBlocks(D d, const C& codes, const WholeRows& of, int64_t first, bool add, MatView<float> out) {
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  const int64_t all = of.shape.full_blocks * PackedShape::kLanes + of.shape.tail_lanes;
  // Sums that are under way together, as in SumRows().
  constexpr int kAtOnce = C::kLoads;
  for (int slice = 0; slice < C::kSlices; slice += C::kSlicesAtOnce) {
    if constexpr (hn::MaxLanes(d) >= 2 * kLeastLanes) {
      if (all * 2 == step) {
        WholeColumns<C, kLeft, 1, kAtOnce, 2>(d, codes, of, first, 0, slice, add, out);
        continue;
      }
    }
    int64_t lane = 0;
    for (; lane + kAtOnce * step <= all; lane += kAtOnce * step)
      WholeColumns<C, kLeft, kAtOnce, 1, 1>(d, codes, of, first, lane, slice, add, out);
    for (; lane < all; lane += step)
      WholeColumns<C, kLeft, 1, kAtOnce, 1>(d, codes, of, first, lane, slice, add, out);
  }
}

template <class C, int kLeft, class D>
void WholeRowsOfLeft(D d, const C& codes, WholeRows& of, MatView<const float> left, int64_t first, bool add,
                     float* scratch, MatView<float> out) {
  hn::Vec<D> constants[4];
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q)
    constants[q] = q < kLeft ? PrepareWeights(d, of, left.row(first + q), scratch + (first + q) * of.stride)
                             : hn::Zero(d);
  SumFour(d, constants[0], constants[1], constants[2], constants[3], of.constants);
  WholeBlocks<C, kLeft>(d, codes, of, first, add, out);
}

template <class C, class D>
HWY_INLINE void WholeLeft(D d, const C& codes, WholeRows& of, MatView<const float> left, bool add,
                          float* scratch, MatView<float> out) {
  for (int64_t first = 0; first < left.rows;) {
    const int64_t count = LeftAtOnce<C>(left.rows - first);
    if (count == 1) WholeRowsOfLeft<C, 1>(d, codes, of, left, first, add, scratch, out);
    if (count == 2) WholeRowsOfLeft<C, 2>(d, codes, of, left, first, add, scratch, out);
    if constexpr (C::kMostLeft >= 3) {
      if (count == 3) WholeRowsOfLeft<C, 3>(d, codes, of, left, first, add, scratch, out);
    }
    if constexpr (C::kMostLeft == 4) {
      if (count == 4) WholeRowsOfLeft<C, 4>(d, codes, of, left, first, add, scratch, out);
    }
    first += count;
  }
}

// Whether vectors cover the rows without a rest.
template <class D>
HWY_INLINE bool IsWhole(D d, const WholeRows& of) {
  const auto step = static_cast<int64_t>(hn::Lanes(d));
  if (of.page.levels || of.shape.bits == 3 || of.page.groups() != 1) return false;
  if (of.shape.tail_lanes == 0) return of.shape.full_blocks > 0;
  if (of.shape.full_blocks > 0) return false;
  if (of.shape.tail_lanes * of.shape.slices != of.shape.width) return false;
  if (of.shape.tail_lanes % step == 0) return true;
  return of.shape.tail_lanes >= kLeastLanes && of.shape.tail_lanes * 2 == step && of.rows % 2 == 0;
}

bool WholeProduct(const PackedPage& page, MatView<const float> left, bool add, float* scratch,
                  MatView<float> out) {
  const hn::CappedTag<float, 16> d;
  WholeRows of{.page = page,
               .shape = PackedShape(page.bits, out.cols),
               .rows = left.cols,
               .scale_by_row = page.by_channel == (page.axis == ScaleAxis::kChannel),
               .weights = scratch,
               .stride = left.cols + PackedShape::kLanes,
               .constants = {}};
  if (!IsWhole(d, of)) return false;
  if (page.bits == 2) WholeLeft(d, Codes<2>(), of, left, add, scratch, out);
  if (page.bits == 4) WholeLeft(d, Codes<4>(), of, left, add, scratch, out);
  if (page.bits == 8) WholeLeft(d, Codes<8>(), of, left, add, scratch, out);
  return true;
}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {
namespace {

HWY_EXPORT(WholeProduct);

}  // namespace

bool whole_product(const PackedPage& page, MatView<const float> left, bool add, float* scratch,
                   MatView<float> out) {
  return HWY_DYNAMIC_DISPATCH(WholeProduct)(page, left, add, scratch, out);
}

}  // namespace kva
#endif
