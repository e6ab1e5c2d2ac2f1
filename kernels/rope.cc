#include "kernels/rope.h"

#include <cmath>
#include <numbers>
#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rope.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/check.h"

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Row r of `rows`: each pair (a, b) = (row[i], row[i + half]) becomes (a cos - b sin, b cos + a sin).
void RotateHalves(MatView<float> rows, int64_t half, const float* turns, int64_t turns_stride) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t r = 0; r < rows.rows; ++r) {
    float* HWY_RESTRICT a = rows.row(r);
    float* HWY_RESTRICT b = a + half;
    const float* HWY_RESTRICT cosines = turns + r * turns_stride;
    const float* HWY_RESTRICT sines = cosines + half;
    int64_t i = 0;
    for (; i + lanes <= half; i += lanes) {
      const auto x = hn::LoadU(d, a + i);
      const auto y = hn::LoadU(d, b + i);
      const auto c = hn::LoadU(d, cosines + i);
      const auto s = hn::LoadU(d, sines + i);
      hn::StoreU(hn::Sub(hn::Mul(x, c), hn::Mul(y, s)), d, a + i);
      hn::StoreU(hn::Add(hn::Mul(y, c), hn::Mul(x, s)), d, b + i);
    }
    for (; i < half; ++i) {
      const float x = a[i];
      const float y = b[i];
      a[i] = x * cosines[i] - y * sines[i];
      b[i] = y * cosines[i] + x * sines[i];
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {
namespace {

HWY_EXPORT(RotateHalves);

// Hugging Face's _compute_llama3_parameters: long wavelengths are slowed down by `factor`, short ones kept,
// those between are interpolated.
float llama3_scaled(float frequency, const RopeScaling& scaling) {
  const float original = static_cast<float>(scaling.original_max_positions);
  const float low = static_cast<float>(scaling.low_freq_factor);
  const float high = static_cast<float>(scaling.high_freq_factor);
  const float factor = static_cast<float>(scaling.factor);
  const float wavelength = static_cast<float>(2.0 * std::numbers::pi) / frequency;
  if (wavelength > static_cast<float>(scaling.original_max_positions / scaling.low_freq_factor))
    return frequency / factor;
  if (wavelength < static_cast<float>(scaling.original_max_positions / scaling.high_freq_factor))
    return frequency;
  const float smooth = (original / wavelength - low) / (high - low);
  return (1.0f - smooth) * frequency / factor + smooth * frequency;
}

}  // namespace

Rope::Rope(int head_dim, int rotary_dim, double theta, const RopeScaling& scaling)
    : head_dim_(head_dim), rotary_dim_(rotary_dim) {
  KVA_CHECK(rotary_dim >= 2 && rotary_dim % 2 == 0 && rotary_dim <= head_dim, "bad rotary dimension");
  inverse_frequencies_.reserve(static_cast<std::size_t>(rotary_dim / 2));
  for (int i = 0; i < rotary_dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(rotary_dim);
    const float power =
        static_cast<float>(std::pow(static_cast<double>(static_cast<float>(theta)), double{exponent}));
    float frequency = 1.0f / power;
    if (scaling.kind == RopeScaling::Kind::kLinear) frequency /= static_cast<float>(scaling.factor);
    if (scaling.kind == RopeScaling::Kind::kLlama3) frequency = llama3_scaled(frequency, scaling);
    inverse_frequencies_.push_back(frequency);
  }
}

Rope::Rope(int head_dim, std::vector<float> inverse_frequencies)
    : head_dim_(head_dim),
      rotary_dim_(static_cast<int>(inverse_frequencies.size()) * 2),
      inverse_frequencies_(std::move(inverse_frequencies)) {
  KVA_CHECK(rotary_dim_ >= 2 && rotary_dim_ <= head_dim, "bad rotary dimension");
}

void Rope::turns_at(int64_t position, float* turns) const {
  const std::size_t half = inverse_frequencies_.size();
  const float at = static_cast<float>(position);
  for (std::size_t i = 0; i < half; ++i) {
    const float angle = at * inverse_frequencies_[i];
    turns[i] = std::cos(angle);
    turns[half + i] = std::sin(angle);
  }
}

void Rope::rotate_by(MatView<float> rows, const float* turns, int64_t turns_stride) const {
  KVA_CHECK(rows.cols == head_dim_, "rows hold one head each");
  HWY_DYNAMIC_DISPATCH(RotateHalves)(rows, rotary_dim_ / 2, turns, turns_stride);
}

void Rope::rotate(float* head, int64_t position) const {
  std::vector<float> turns(static_cast<std::size_t>(rotary_dim_));
  turns_at(position, turns.data());
  rotate_by(MatView<float>(head, 1, head_dim_), turns.data(), 0);
}

void Rope::rotate_rows(MatView<float> rows, std::span<const int64_t> positions) const {
  KVA_CHECK(static_cast<int64_t>(positions.size()) == rows.rows, "one position a row");
  KVA_CHECK(rows.cols % head_dim_ == 0, "rows hold whole heads");
  std::vector<float> turns(static_cast<std::size_t>(rotary_dim_));
  for (int64_t r = 0; r < rows.rows; ++r) {
    if (r == 0 || positions[static_cast<std::size_t>(r)] != positions[static_cast<std::size_t>(r - 1)])
      turns_at(positions[static_cast<std::size_t>(r)], turns.data());
    rotate_by(MatView<float>(rows.row(r), rows.cols / head_dim_, head_dim_), turns.data(), 0);
  }
}

}  // namespace kva
#endif
