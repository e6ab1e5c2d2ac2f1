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

// kRows rows of x times kOuts rows of weights. One accumulator for each result, whatever the block's shape:
// that is what makes a row's result independent of its companions.
//
// Rows of weights are too short for the hardware to see four streams, so the block after this one is fetched
// ahead, once for all rows of x: that doubles the speed from memory.
template <int kRows, int kOuts, bool kFetchAhead, class S>
HWY_INLINE void block(MatView<const float> x, const typename S::Stored* weights, int64_t cols,
                      const float* bias, MatView<float> out) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  V sums[kRows][kOuts];
  for (auto& row : sums)
    for (V& sum : row) sum = hn::Zero(d);
  int64_t c = 0;
  for (; c + lanes <= cols; c += lanes) {
    V w[kOuts];
    for (int n = 0; n < kOuts; ++n) {
      w[n] = S::load(d, weights + n * cols + c);
      if constexpr (kFetchAhead) hwy::Prefetch(weights + (n + kOuts) * cols + c);
    }
    for (int r = 0; r < kRows; ++r) {
      const V value = hn::LoadU(d, x.row(r) + c);
      for (int n = 0; n < kOuts; ++n) sums[r][n] = hn::MulAdd(value, w[n], sums[r][n]);
    }
  }
  if (const size_t rest = static_cast<size_t>(cols - c); rest > 0) {
    for (int r = 0; r < kRows; ++r) {
      const V value = load_tail<StoredF32>(d, x.row(r) + c, rest);
      for (int n = 0; n < kOuts; ++n)
        sums[r][n] = hn::MulAdd(value, load_tail<S>(d, weights + n * cols + c, rest), sums[r][n]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int n = 0; n < kOuts; ++n)
      out.at(r, n) = hn::GetLane(hn::SumOfLanes(d, sums[r][n])) + (bias ? bias[n] : 0.0f);
}

template <int kOuts, class S>
void all_rows(MatView<const float> x, const typename S::Stored* weights, const float* bias,
              MatView<float> out) {
  constexpr int kRows = 4;
  const auto some = [&]<int kCount, bool kFetchAhead>(int64_t r) {
    block<kCount, kOuts, kFetchAhead, S>(x.row_range(r, kCount), weights, x.cols, bias,
                                         out.row_range(r, kCount));
    return r + kCount;
  };
  int64_t r =
      x.rows >= kRows ? some.template operator()<kRows, true>(0) : some.template operator()<1, true>(0);
  while (r + kRows <= x.rows) r = some.template operator()<kRows, false>(r);
  while (r < x.rows) r = some.template operator()<1, false>(r);
}

void product(MatView<const float> x, const LinearOp& op, int64_t first, int64_t count) {
  constexpr int kOuts = 4;
  with_stored(op.weights.dtype, [&](auto stored) {
    using S = decltype(stored);
    const auto* weights = static_cast<const typename S::Stored*>(op.weights.data);
    const auto bias = [&](int64_t n) { return op.bias ? op.bias + n : nullptr; };
    const int64_t end = first + count;
    int64_t n = first;
    for (; n + kOuts <= end; n += kOuts)
      all_rows<kOuts, S>(x, weights + n * x.cols, bias(n), op.out.col_range(n, kOuts));
    for (; n < end; ++n) all_rows<1, S>(x, weights + n * x.cols, bias(n), op.out.col_range(n, 1));
  });
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
