#include "kernels/hadamard.h"

#include <cmath>

#include "kernels/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/hadamard.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Sums and differences of numbers `half` apart; vectors have at most `half` lanes.
template <class D>
HWY_INLINE void Butterflies(D d, float* HWY_RESTRICT row, int64_t width, int64_t half) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t block = 0; block < width; block += 2 * half) {
    for (int64_t i = block; i < block + half; i += lanes) {
      const auto a = hn::LoadU(d, row + i);
      const auto b = hn::LoadU(d, row + i + half);
      hn::StoreU(hn::Add(a, b), d, row + i);
      hn::StoreU(hn::Sub(a, b), d, row + i + half);
    }
  }
}

// The steps of 1 and of 2, four numbers at a time.
HWY_INLINE void FirstSteps(float* HWY_RESTRICT row, int64_t width) {
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<double, 2> pairs;
  for (int64_t i = 0; i < width; i += 4) {
    auto v = hn::LoadU(d, row + i);
    auto other = hn::Shuffle2301(v);
    v = hn::OddEven(hn::Sub(other, v), hn::Add(v, other));
    other = hn::Shuffle1032(v);
    v = hn::BitCast(
        d, hn::OddEven(hn::BitCast(pairs, hn::Sub(other, v)), hn::BitCast(pairs, hn::Add(v, other))));
    hn::StoreU(v, d, row + i);
  }
#else
  Butterflies(hn::FixedTag<float, 1>(), row, width, 1);
  Butterflies(hn::FixedTag<float, 1>(), row, width, 2);
#endif
}

// width: at least 4.
void HadamardRow(float* HWY_RESTRICT row, int64_t width, float scale) {
  const hn::CappedTag<float, 16> full;
  FirstSteps(row, width);
  for (int64_t half = 4; half < width; half *= 2) {
    // NOLINTBEGIN(bugprone-branch-clone): on targets with short vectors all of these are the same.
    if (half >= static_cast<int64_t>(hn::Lanes(full)))
      Butterflies(full, row, width, half);
    else if (half == 8)
      Butterflies(hn::CappedTag<float, 8>(), row, width, half);
    else
      Butterflies(hn::CappedTag<float, 4>(), row, width, half);
    // NOLINTEND(bugprone-branch-clone)
  }
  for (int64_t i = 0; i < width; ++i) row[i] *= scale;
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {
namespace {

HWY_EXPORT(HadamardRow);

}  // namespace

void hadamard_rows(MatView<float> rows) {
  KVA_CHECK(rows.cols > 0 && (rows.cols & (rows.cols - 1)) == 0, "a power of two of columns");
  const float scale = 1.0f / std::sqrt(static_cast<float>(rows.cols));
  for (int64_t r = 0; r < rows.rows; ++r) {
    float* row = rows.row(r);
    if (rows.cols >= 4) {
      HWY_DYNAMIC_DISPATCH(HadamardRow)(row, rows.cols, scale);
    } else if (rows.cols == 2) {
      const float sum = row[0] + row[1], difference = row[0] - row[1];
      row[0] = sum * scale;
      row[1] = difference * scale;
    }
  }
}

}  // namespace kva
#endif
