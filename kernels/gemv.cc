#include "kernels/gemv.h"

#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemv.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, as Highway asks.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kva::HWY_NAMESPACE {
using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

// The rest of a row that fills no vector, zeros behind it.
template <class S>
HWY_INLINE V load_tail(D d, const typename S::Stored* p, size_t count) {
  typename S::Stored lanes[hn::MaxLanes(d)] = {};
  std::memcpy(lanes, p, count * sizeof(typename S::Stored));
  return S::load(d, lanes);
}

// Rows of weights of one type, from some row on: vectors of row n from column c on.
template <class S>
class Numbers {
 public:
  Numbers(const WeightView& weights, int64_t first)
      : cols_(weights.cols), at_(static_cast<const typename S::Stored*>(weights.data) + first * cols_) {}
  HWY_INLINE V load(D d, int64_t n, int64_t c) const { return S::load(d, at_ + n * cols_ + c); }
  HWY_INLINE V tail(D d, int64_t n, int64_t c, size_t count) const {
    return load_tail<S>(d, at_ + n * cols_ + c, count);
  }
  HWY_INLINE void fetch(int64_t n, int64_t c) const { hwy::Prefetch(at_ + n * cols_ + c); }

 private:
  int64_t cols_;
  const typename S::Stored* at_;
};

// The same of 8-bit codes: widened and multiplied by their scale in registers. A vector lies in one group.
class Codes {
 public:
  Codes(const WeightView& weights, int64_t first)
      : cols_(weights.cols),
        groups_(int8_groups(cols_)),
        at_(static_cast<const int8_t*>(weights.data) + first * cols_),
        scales_(weights.scales + first * groups_) {}
  HWY_INLINE V load(D d, int64_t n, int64_t c) const { return widened(d, at_ + n * cols_ + c, n, c); }
  HWY_INLINE V tail(D d, int64_t n, int64_t c, size_t count) const {
    int8_t lanes[hn::MaxLanes(d)] = {};
    std::memcpy(lanes, at_ + n * cols_ + c, HWY_MIN(count, hn::MaxLanes(d)));
    return widened(d, lanes, n, c);
  }
  HWY_INLINE void fetch(int64_t n, int64_t c) const {
    if (c % kInt8Group == 0) hwy::Prefetch(at_ + n * cols_ + c);  // a group is a cache line
  }

 private:
  HWY_INLINE V widened(D d, const int8_t* codes, int64_t n, int64_t c) const {
    static_assert(hn::MaxLanes(D()) <= kInt8Group);
    const hn::Rebind<int8_t, D> bytes;
    const hn::Rebind<int32_t, D> words;
    const V numbers = hn::ConvertTo(d, hn::PromoteTo(words, hn::LoadU(bytes, codes)));
    return hn::Mul(numbers, hn::Set(d, scales_[n * groups_ + c / kInt8Group]));
  }

  int64_t cols_, groups_;
  const int8_t* at_;
  const float* scales_;
};

// kRows rows of x times kOuts rows of weights. One accumulator for each result, whatever the block's shape:
// that is what makes a row's result independent of its companions.
//
// Rows of weights are too short for the hardware to see four streams, so the block after this one is fetched
// ahead, once for all rows of x: that doubles the speed from memory.
template <int kRows, int kOuts, bool kFetchAhead, class Weights>
HWY_INLINE void block(MatView<const float> x, const Weights& weights, const float* bias, MatView<float> out) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  V sums[kRows][kOuts];
  for (auto& row : sums)
    for (V& sum : row) sum = hn::Zero(d);
  int64_t c = 0;
  for (; c + lanes <= x.cols; c += lanes) {
    V w[kOuts];
    for (int n = 0; n < kOuts; ++n) {
      w[n] = weights.load(d, n, c);
      if constexpr (kFetchAhead) weights.fetch(n + kOuts, c);
    }
    for (int r = 0; r < kRows; ++r) {
      const V value = hn::LoadU(d, x.row(r) + c);
      for (int n = 0; n < kOuts; ++n) sums[r][n] = hn::MulAdd(value, w[n], sums[r][n]);
    }
  }
  if (const size_t rest = static_cast<size_t>(x.cols - c); rest > 0) {
    for (int r = 0; r < kRows; ++r) {
      const V value = load_tail<StoredF32>(d, x.row(r) + c, rest);
      for (int n = 0; n < kOuts; ++n) sums[r][n] = hn::MulAdd(value, weights.tail(d, n, c, rest), sums[r][n]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int n = 0; n < kOuts; ++n)
      out.at(r, n) = hn::GetLane(hn::SumOfLanes(d, sums[r][n])) + (bias ? bias[n] : 0.0f);
}

template <int kOuts, class Weights>
void all_rows(MatView<const float> x, const Weights& weights, const float* bias, MatView<float> out) {
  constexpr int kRows = 4;
  const auto some = [&]<int kCount, bool kFetchAhead>(int64_t r) {
    block<kCount, kOuts, kFetchAhead>(x.row_range(r, kCount), weights, bias, out.row_range(r, kCount));
    return r + kCount;
  };
  int64_t r =
      x.rows >= kRows ? some.template operator()<kRows, true>(0) : some.template operator()<1, true>(0);
  while (r + kRows <= x.rows) r = some.template operator()<kRows, false>(r);
  while (r < x.rows) r = some.template operator()<1, false>(r);
}

template <class Weights>
void product_with(MatView<const float> x, const LinearOp& op, int64_t first, int64_t count) {
  constexpr int kOuts = 4;
  const auto bias = [&](int64_t n) { return op.bias ? op.bias + n : nullptr; };
  const int64_t end = first + count;
  int64_t n = first;
  for (; n + kOuts <= end; n += kOuts)
    all_rows<kOuts>(x, Weights(op.weights, n), bias(n), op.out.col_range(n, kOuts));
  for (; n < end; ++n) all_rows<1>(x, Weights(op.weights, n), bias(n), op.out.col_range(n, 1));
}

void product(MatView<const float> x, const LinearOp& op, int64_t first, int64_t count) {
  if (op.weights.scales) return product_with<Codes>(x, op, first, count);
  with_stored(op.weights.dtype,
              [&](auto stored) { product_with<Numbers<decltype(stored)>>(x, op, first, count); });
}

}  // namespace kva::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {

HWY_EXPORT(product);

void few_rows_product(MatView<const float> x, const LinearOp& op, int64_t first, int64_t count) {
  HWY_DYNAMIC_DISPATCH(product)(x, op, first, count);
}

}  // namespace kva
#endif
