#include "kernels/transpose.h"

#include "kernels/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/transpose.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Four rows and four columns from (r, c) on.
HWY_INLINE void TransposeBlock(MatView<const float> from, MatView<float> to, int64_t r, int64_t c) {
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<double, 2> pairs;
  const auto row = [&](int64_t i) { return hn::LoadU(d, from.row(r + i) + c); };
  const auto two = [&](auto a, auto b, int64_t i) {
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, a, b)), d, to.row(c + i) + r);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, a, b)), d, to.row(c + i + 1) + r);
  };
  const auto a = row(0), b = row(1), e = row(2), f = row(3);
  two(hn::BitCast(pairs, hn::InterleaveLower(d, a, b)), hn::BitCast(pairs, hn::InterleaveLower(d, e, f)), 0);
  two(hn::BitCast(pairs, hn::InterleaveUpper(d, a, b)), hn::BitCast(pairs, hn::InterleaveUpper(d, e, f)), 2);
#else
  for (int64_t i = 0; i < 4; ++i)
    for (int64_t j = 0; j < 4; ++j) to.at(c + j, r + i) = from.at(r + i, c + j);
#endif
}

void Transpose(MatView<const float> from, MatView<float> to) {
  int64_t r = 0;
  for (; r + 4 <= from.rows; r += 4) {
    int64_t c = 0;
    for (; c + 4 <= from.cols; c += 4) TransposeBlock(from, to, r, c);
    for (; c < from.cols; ++c)
      for (int64_t i = r; i < r + 4; ++i) to.at(c, i) = from.at(i, c);
  }
  for (; r < from.rows; ++r)
    for (int64_t c = 0; c < from.cols; ++c) to.at(c, r) = from.at(r, c);
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {
namespace {

HWY_EXPORT(Transpose);

}  // namespace

void transpose(MatView<const float> from, MatView<float> to) {
  KVA_CHECK(to.rows == from.cols && to.cols == from.rows, "a target of another shape");
  HWY_DYNAMIC_DISPATCH(Transpose)(from, to);
}

}  // namespace kva
#endif
