#include "kernels/weight_view.h"

#include <algorithm>
#include <cmath>

#include "kernels/convert.h"

namespace kva {
namespace {

constexpr float kLargestCode = 127.0f;
constexpr float kLargestScale = 0x1.02p+121f;  // times the largest code still finite

void quantize_group(const float* weights, int64_t count, int8_t* codes, float& scale) {
  float largest = 0.0f;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(weights[i]));
  scale = std::min(largest / kLargestCode, kLargestScale);
  // A group of zeros, or of numbers so small that their scale is none.
  if (scale == 0.0f) {
    std::fill_n(codes, count, int8_t{0});
    return;
  }
  for (int64_t i = 0; i < count; ++i)
    codes[i] =
        static_cast<int8_t>(std::clamp(std::nearbyint(weights[i] / scale), -kLargestCode, kLargestCode));
}

}  // namespace

void quantize_int8(MatView<const float> rows, int8_t* codes, float* scales) {
  for (int64_t r = 0; r < rows.rows; ++r) {
    for (int64_t first = 0; first < rows.cols; first += kInt8Group) {
      const int64_t count = std::min(kInt8Group, rows.cols - first);
      quantize_group(rows.row(r) + first, count, codes + r * rows.cols + first, *scales++);
    }
  }
}

void widen_weights(const WeightView& weights, float* out) {
  if (!weights.scales) return to_f32(weights.data, weights.dtype, out, weights.rows * weights.cols);
  const auto* codes = static_cast<const int8_t*>(weights.data);
  const float* scales = weights.scales;
  for (int64_t r = 0; r < weights.rows; ++r) {
    for (int64_t first = 0; first < weights.cols; first += kInt8Group) {
      const float scale = *scales++;
      const int64_t end = std::min(first + kInt8Group, weights.cols);
      for (int64_t c = first; c < end; ++c) *out++ = static_cast<float>(*codes++) * scale;
    }
  }
}

}  // namespace kva
