#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// Highway's mathematics needs the per-target highway.h above it.
#include <hwy/contrib/math/math-inl.h>

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

constexpr float kEmpty = -std::numeric_limits<float>::infinity();

float RowMax(const float* row, int64_t count) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto most = hn::Set(d, kEmpty);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) most = hn::Max(most, hn::LoadU(d, row + i));
  float result = hn::GetLane(hn::MaxOfLanes(d, most));
  for (; i < count; ++i) result = std::max(result, row[i]);
  return result;
}

void ScaleRow(float* row, int64_t count, float factor) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto by = hn::Set(d, factor);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(hn::Mul(hn::LoadU(d, row + i), by), d, row + i);
  for (; i < count; ++i) row[i] *= factor;
}

// Highway's Exp gives 0 for NaN.
template <class D>
HWY_INLINE hn::Vec<D> ExpOfDifference(D d, hn::Vec<D> score, hn::Vec<D> max) {
  const auto x = hn::Sub(score, max);
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, x));
}

// row = exp(row - max); returns the sum.
float ExpRow(float* row, int64_t count, float max) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto most = hn::Set(d, max);
  auto sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto weight = ExpOfDifference(d, hn::LoadU(d, row + i), most);
    hn::StoreU(weight, d, row + i);
    sum = hn::Add(sum, weight);
  }
  float result = hn::GetLane(hn::SumOfLanes(d, sum));
  if (i < count) {
    HWY_ALIGN float rest[hn::MaxLanes(d)];
    std::fill_n(rest, lanes, kEmpty);
    std::copy(row + i, row + count, rest);
    hn::Store(ExpOfDifference(d, hn::Load(d, rest), most), d, rest);
    for (int64_t j = 0; i + j < count; ++j) result += row[i + j] = rest[j];
  }
  return result;
}

void AddAttention(MatView<const float> scores, const float* max, const float* sum,
                  float* HWY_RESTRICT totals) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t cols = scores.cols;
  HWY_ALIGN float rest[hn::MaxLanes(d)];
  for (int64_t r = 0; r < scores.rows; ++r) {
    if (sum[r] == 0.0f) continue;
    const float* row = scores.row(r);
    const auto most = hn::Set(d, max[r]);
    const auto share = hn::Set(d, 1.0f / sum[r]);
    int64_t i = 0;
    for (; i + lanes <= cols; i += lanes)
      hn::StoreU(hn::MulAdd(ExpOfDifference(d, hn::LoadU(d, row + i), most), share, hn::LoadU(d, totals + i)),
                 d, totals + i);
    if (i == cols) continue;
    std::fill_n(rest, lanes, kEmpty);
    std::copy(row + i, row + cols, rest);
    hn::Store(hn::Mul(ExpOfDifference(d, hn::Load(d, rest), most), share), d, rest);
    for (int64_t j = 0; i + j < cols; ++j) totals[i + j] += rest[j];
  }
}

void SoftmaxUpdate(MatView<float> scores, const PartialState& state) {
  for (int64_t r = 0; r < scores.rows; ++r) {
    float* row = scores.row(r);
    const float before = state.max[r];
    const float max = std::max(before, RowMax(row, scores.cols));
    if (before != kEmpty && max > before) {
      const float factor = std::exp(before - max);
      state.sum[r] *= factor;
      ScaleRow(state.values.row(r), state.values.cols, factor);
    }
    // With every key masked so far there is no maximum to subtract; any finite one gives weights of 0.
    state.sum[r] += ExpRow(row, scores.cols, max == kEmpty ? 0.0f : max);
    state.max[r] = max;
  }
}

void Merge(const PartialState& into, const PartialState& from) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t r = 0; r < into.values.rows; ++r) {
    const float max = std::max(into.max[r], from.max[r]);
    const float a = into.max[r] == kEmpty ? 0.0f : std::exp(into.max[r] - max);
    const float b = from.max[r] == kEmpty ? 0.0f : std::exp(from.max[r] - max);
    into.max[r] = max;
    into.sum[r] = a * into.sum[r] + b * from.sum[r];
    float* HWY_RESTRICT x = into.values.row(r);
    const float* HWY_RESTRICT y = from.values.row(r);
    int64_t i = 0;
    for (; i + lanes <= into.values.cols; i += lanes)
      hn::StoreU(hn::MulAdd(hn::Set(d, a), hn::LoadU(d, x + i), hn::Mul(hn::Set(d, b), hn::LoadU(d, y + i))),
                 d, x + i);
    for (; i < into.values.cols; ++i) x[i] = a * x[i] + b * y[i];
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {
namespace {

HWY_EXPORT(SoftmaxUpdate);
HWY_EXPORT(Merge);
HWY_EXPORT(AddAttention);

}  // namespace

void clear(const PartialState& state) {
  for (int64_t r = 0; r < state.values.rows; ++r) {
    std::fill_n(state.values.row(r), state.values.cols, 0.0f);
    state.max[r] = -std::numeric_limits<float>::infinity();
    state.sum[r] = 0.0f;
  }
}

void softmax_update(MatView<float> scores, const PartialState& state) {
  KVA_CHECK(scores.rows == state.values.rows, "one state a row of scores");
  HWY_DYNAMIC_DISPATCH(SoftmaxUpdate)(scores, state);
}

void merge(const PartialState& into, const PartialState& from) {
  KVA_CHECK(into.values.rows == from.values.rows && into.values.cols == from.values.cols,
            "states of one shape merge");
  HWY_DYNAMIC_DISPATCH(Merge)(into, from);
}

void add_attention(MatView<const float> scores, const float* max, const float* sum, float* totals) {
  HWY_DYNAMIC_DISPATCH(AddAttention)(scores, max, sum, totals);
}

void finish(const PartialState& state, MatView<float> out) {
  for (int64_t r = 0; r < state.values.rows; ++r) {
    const bool empty = state.sum[r] == 0.0f;
    const float* values = state.values.row(r);
    for (int64_t i = 0; i < state.values.cols; ++i) out.at(r, i) = empty ? 0.0f : values[i] / state.sum[r];
  }
}

}  // namespace kva
#endif
