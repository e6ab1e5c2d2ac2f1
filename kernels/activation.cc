#include "kernels/activation.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/activation.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, as Highway asks.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace kva::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

// 1 / (1 + exp(-x)); Highway's Exp is valid up to 104 only.
HWY_INLINE V sigmoid(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  const V power = hn::Exp(d, hn::Min(hn::Neg(x), hn::Set(d, 88.0f)));
  return hn::Div(one, hn::Add(one, power));
}

// erfc(z) for z >= 0 within 1.2e-7 relative: t exp(-z² + P(t)), t = 1 / (1 + z/2), P the Chebyshev fit of
// Press et al., Numerical Recipes, section 6.2.
HWY_INLINE V erfc_positive(D d, V z) {
  constexpr float kP[] = {-1.26551223f, 1.00002368f,  0.37409196f, 0.09678418f,  -0.18628806f,
                          0.27886807f,  -1.13520398f, 1.48851587f, -0.82215223f, 0.17087277f};
  const V t = hn::Div(hn::Set(d, 1.0f), hn::MulAdd(hn::Set(d, 0.5f), z, hn::Set(d, 1.0f)));
  V p = hn::Set(d, kP[9]);
  for (int i = 8; i >= 0; --i) p = hn::MulAdd(p, t, hn::Set(d, kP[i]));
  return hn::Mul(t, hn::Exp(d, hn::NegMulAdd(z, z, p)));
}

HWY_INLINE V apply(D d, Activation activation, V x) {
  switch (activation) {
    case Activation::kRelu: return hn::Max(x, hn::Zero(d));
    case Activation::kGeluTanh: {
      // 0.5 (1 + tanh(u)) = sigmoid(2u), which keeps its relative precision for negative x.
      const V cube = hn::Mul(hn::Mul(x, x), x);
      const V u = hn::Mul(hn::Set(d, 1.5957691216057308f), hn::MulAdd(hn::Set(d, 0.044715f), cube, x));
      return hn::Mul(x, sigmoid(d, u));
    }
    case Activation::kGeluErf: {
      const V half =
          hn::Mul(hn::Set(d, 0.5f), erfc_positive(d, hn::Mul(hn::Abs(x), hn::Set(d, 0.70710678f))));
      return hn::Mul(x, hn::IfThenElse(hn::Lt(x, hn::Zero(d)), half, hn::Sub(hn::Set(d, 1.0f), half)));
    }
    case Activation::kSilu: return hn::Mul(x, sigmoid(d, x));
  }
  return x;
}

// Calls body(first, count) for whole vectors of a row and for its rest.
template <class Body>
HWY_INLINE void by_vectors(int64_t cols, const Body& body) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(D()));
  for (int64_t c = 0; c < cols; c += lanes) body(c, std::min(lanes, cols - c));
}

HWY_INLINE V load_some(D d, const float* p, int64_t count) {
  if (count == static_cast<int64_t>(hn::Lanes(d))) return hn::LoadU(d, p);
  HWY_ALIGN float lanes[hn::MaxLanes(d)] = {};
  std::copy_n(p, count, lanes);
  return hn::Load(d, lanes);
}

HWY_INLINE void store_some(D d, V value, float* p, int64_t count) {
  if (count == static_cast<int64_t>(hn::Lanes(d))) return hn::StoreU(value, d, p);
  HWY_ALIGN float lanes[hn::MaxLanes(d)];
  hn::Store(value, d, lanes);
  std::copy_n(lanes, count, p);
}

void activate_row(Activation activation, float* x, const float* up, int64_t cols) {
  const D d;
  by_vectors(cols, [&](int64_t c, int64_t count) {
    V value = apply(d, activation, load_some(d, x + c, count));
    if (up) value = hn::Mul(value, load_some(d, up + c, count));
    store_some(d, value, x + c, count);
  });
}

void add_row(float* x, const float* y, int64_t cols) {
  const D d;
  by_vectors(cols, [&](int64_t c, int64_t count) {
    store_some(d, hn::Add(load_some(d, x + c, count), load_some(d, y + c, count)), x + c, count);
  });
}

}  // namespace kva::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {

HWY_EXPORT(activate_row);
HWY_EXPORT(add_row);

void activate(Activation activation, MatView<float> x) {
  for (int64_t r = 0; r < x.rows; ++r)
    HWY_DYNAMIC_DISPATCH(activate_row)(activation, x.row(r), nullptr, x.cols);
}

void activate_gated(Activation activation, MatView<float> x, MatView<const float> up) {
  KVA_CHECK(up.rows == x.rows && up.cols == x.cols, "gate and up of unfitting shapes");
  for (int64_t r = 0; r < x.rows; ++r)
    HWY_DYNAMIC_DISPATCH(activate_row)(activation, x.row(r), up.row(r), x.cols);
}

void add_rows(MatView<float> x, MatView<const float> y) {
  KVA_CHECK(y.rows == x.rows && y.cols == x.cols, "sum of unfitting shapes");
  for (int64_t r = 0; r < x.rows; ++r) HWY_DYNAMIC_DISPATCH(add_row)(x.row(r), y.row(r), x.cols);
}

}  // namespace kva
#endif
