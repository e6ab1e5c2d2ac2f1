// Weights as products read them: numbers of one type, or 8-bit codes with a scale for each group of inputs.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/host_device.h"
#include "kernels/views.h"

namespace kva {

// So many neighbouring inputs of an output share a scale; the last group of a row may be shorter. With a
// scale in f32 a weight takes 8.5 bits.
inline constexpr int64_t kInt8Group = 64;
KVA_HOST_DEVICE constexpr int64_t int8_groups(int64_t cols) { return (cols + kInt8Group - 1) / kInt8Group; }

// Row-major [rows (outputs), cols (inputs)], rows adjacent. Need not be aligned.
struct WeightView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  // [rows, int8_groups(cols)]. Where given, data are codes, int8_t in [-127, 127], weight (r, c) is
  // code(r, c) * scale(r, c / kInt8Group), and dtype is f32, which such a weight is computed in.
  const float* scales = nullptr;

  int64_t row_bytes() const {
    return scales ? cols + int8_groups(cols) * static_cast<int64_t>(sizeof(float))
                  : cols * dtype_bytes(dtype);
  }
  int64_t bytes() const { return rows * row_bytes(); }
  WeightView row_range(int64_t first, int64_t count) const {
    KVA_CHECK(first >= 0 && count >= 0 && first + count <= rows, "row range outside the weights");
    const int64_t element = scales ? 1 : dtype_bytes(dtype);
    return {static_cast<const char*>(data) + first * cols * element, dtype, count, cols,
            scales ? scales + first * int8_groups(cols) : nullptr};
  }

  friend bool operator==(const WeightView&, const WeightView&) = default;
};

// Codes and scales of rows [n, cols], which are finite: scale = max|w| / 127 of the group, code = w / scale
// to nearest. A weight is then off by at most half its scale. codes: [n, cols]; scales: [n,
// int8_groups(cols)].
void quantize_int8(MatView<const float> rows, int8_t* codes, float* scales);

// All of the weights in f32, exactly. out: [rows, cols], adjacent.
void widen_weights(const WeightView& weights, float* out);

}  // namespace kva
