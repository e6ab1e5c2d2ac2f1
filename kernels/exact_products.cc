#include "kernels/exact_products.h"

#include <algorithm>
#include <vector>

#include "kernels/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/exact_products.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// So many vectors are taken at once, side by side: number c of all of them, then number c + 1.
constexpr int64_t kBlock = 16;

// The products of kRows rows with a block. rows: each `width` numbers behind the one before. out: kRows times
// the block's.
template <int kRows>
HWY_INLINE void BlockProducts(const double* HWY_RESTRICT rows, int64_t width,
                              const double* HWY_RESTRICT block, float* HWY_RESTRICT out) {
  const hn::CappedTag<double, kBlock / 2> d;
  const hn::Rebind<float, decltype(d)> narrow;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t first = 0; first < kBlock; first += 2 * lanes) {
    decltype(hn::Zero(d)) low[kRows], high[kRows];
    for (int r = 0; r < kRows; ++r) low[r] = high[r] = hn::Zero(d);
    const double* HWY_RESTRICT numbers = block + first;
    for (int64_t c = 0; c < width; ++c, numbers += kBlock) {
      const auto of_low = hn::LoadU(d, numbers), of_high = hn::LoadU(d, numbers + lanes);
      for (int r = 0; r < kRows; ++r) {
        const auto x = hn::Set(d, rows[r * width + c]);
        low[r] = hn::MulAdd(x, of_low, low[r]);
        high[r] = hn::MulAdd(x, of_high, high[r]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      hn::StoreU(hn::DemoteTo(narrow, low[r]), narrow, out + r * kBlock + first);
      hn::StoreU(hn::DemoteTo(narrow, high[r]), narrow, out + r * kBlock + first + lanes);
    }
  }
}

void Products(MatView<const float> rows, MatView<const float> vectors, MatView<float> out) {
  constexpr int64_t kAtOnce = 4;
  const int64_t width = rows.cols;
  std::vector<double> wide(static_cast<std::size_t>(rows.rows * width)),
      block(static_cast<std::size_t>(width * kBlock));
  for (int64_t t = 0; t < rows.rows; ++t) std::copy_n(rows.row(t), width, wide.data() + t * width);
  float sums[kAtOnce * kBlock];
  for (int64_t first = 0; first < vectors.rows; first += kBlock) {
    const int64_t of_block = std::min(kBlock, vectors.rows - first);
    for (int64_t v = 0; v < of_block; ++v)
      for (int64_t c = 0; c < width; ++c)
        block[static_cast<std::size_t>(c * kBlock + v)] = static_cast<double>(vectors.at(first + v, c));
    for (int64_t t = 0, count; t < rows.rows; t += count) {
      count = t + kAtOnce <= rows.rows ? kAtOnce : 1;
      const double* of_rows = wide.data() + t * width;
      if (count == kAtOnce)
        BlockProducts<kAtOnce>(of_rows, width, block.data(), sums);
      else
        BlockProducts<1>(of_rows, width, block.data(), sums);
      for (int64_t r = 0; r < count; ++r) std::copy_n(sums + r * kBlock, of_block, out.row(t + r) + first);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {

HWY_EXPORT(Products);

void exact_products(MatView<const float> rows, MatView<const float> vectors, MatView<float> out) {
  KVA_CHECK(rows.cols == vectors.cols && rows.rows == out.rows && vectors.rows == out.cols,
            "a product of fitting shapes");
  HWY_DYNAMIC_DISPATCH(Products)(rows, vectors, out);
}

}  // namespace kva
#endif  // HWY_ONCE
