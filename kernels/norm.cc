#include "kernels/norm.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/norm.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, as Highway asks.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace kva::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;

// Sum over the row of (x - center)^power.
template <int kPower>
float row_sum(const float* x, int64_t cols, float center) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto minus = hn::Set(d, center);
  auto sum = hn::Zero(d);
  int64_t c = 0;
  for (; c + lanes <= cols; c += lanes) {
    const auto value = hn::Sub(hn::LoadU(d, x + c), minus);
    if constexpr (kPower == 1)
      sum = hn::Add(sum, value);
    else
      sum = hn::MulAdd(value, value, sum);
  }
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; c < cols; ++c) total += kPower == 1 ? x[c] - center : (x[c] - center) * (x[c] - center);
  return total;
}

// out = (x - center) * scale * weight + bias.
void row_apply(const float* x, int64_t cols, float center, float scale, const float* weight,
               const float* bias, float* out) {
  const D d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t c = 0;
  for (; c + lanes <= cols; c += lanes) {
    const auto scaled = hn::Mul(hn::Sub(hn::LoadU(d, x + c), hn::Set(d, center)), hn::Set(d, scale));
    const auto shift = bias ? hn::LoadU(d, bias + c) : hn::Zero(d);
    hn::StoreU(hn::MulAdd(scaled, hn::LoadU(d, weight + c), shift), d, out + c);
  }
  for (; c < cols; ++c) out[c] = (x[c] - center) * scale * weight[c] + (bias ? bias[c] : 0.0f);
}

void layer_norm_rows(MatView<const float> x, const float* weight, const float* bias, float eps,
                     MatView<float> out) {
  const float count = static_cast<float>(x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    const float mean = row_sum<1>(x.row(r), x.cols, 0.0f) / count;
    const float variance = row_sum<2>(x.row(r), x.cols, mean) / count;
    row_apply(x.row(r), x.cols, mean, 1.0f / std::sqrt(variance + eps), weight, bias, out.row(r));
  }
}

void rms_norm_rows(MatView<const float> x, const float* weight, float eps, MatView<float> out) {
  for (int64_t r = 0; r < x.rows; ++r) {
    const float mean_square = row_sum<2>(x.row(r), x.cols, 0.0f) / static_cast<float>(x.cols);
    row_apply(x.row(r), x.cols, 0.0f, 1.0f / std::sqrt(mean_square + eps), weight, nullptr, out.row(r));
  }
}

}  // namespace kva::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {

HWY_EXPORT(layer_norm_rows);
HWY_EXPORT(rms_norm_rows);

void layer_norm(MatView<const float> x, const float* weight, const float* bias, float eps,
                MatView<float> out) {
  KVA_CHECK(out.rows == x.rows && out.cols == x.cols, "norm of unfitting shapes");
  HWY_DYNAMIC_DISPATCH(layer_norm_rows)(x, weight, bias, eps, out);
}

void rms_norm(MatView<const float> x, const float* weight, float eps, MatView<float> out) {
  KVA_CHECK(out.rows == x.rows && out.cols == x.cols, "norm of unfitting shapes");
  HWY_DYNAMIC_DISPATCH(rms_norm_rows)(x, weight, eps, out);
}

}  // namespace kva
#endif
