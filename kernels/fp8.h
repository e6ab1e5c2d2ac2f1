// 8-bit floats (FP8 Formats for Deep Learning, arXiv 2209.05433; OCP's spelling): e4m3fn up to 448, without
// infinities; e5m2, an f16 without its lower byte, up to 57,344. Conversion, and products with stored rows as
// kernels/dense_rows.h has them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/views.h"

namespace kva {

enum class Fp8 : uint8_t { kE4M3, kE5M2 };

// Rounds to nearest even; what is larger than the largest number, infinities too, becomes it. NaN stays NaN.
uint8_t fp8_from_f32(float value, Fp8 type);
float f32_from_fp8(uint8_t code, Fp8 type);

// The same of `count` numbers.
void fp8_from_f32(const float* values, Fp8 type, uint8_t* codes, int64_t count);
void fp8_to_f32(const uint8_t* codes, Fp8 type, float* values, int64_t count);

// scores(q, t) = queries row q · stored row t. stored: [scores.cols, queries.cols], contiguous.
void fp8_scores(MatView<const float> queries, const uint8_t* stored, Fp8 type, MatView<float> scores,
                const std::byte* ahead = nullptr);

// out row q += sum over t of weights(q, t) * stored row t. stored: [weights.cols, out.cols], contiguous.
void fp8_accumulate(MatView<const float> weights, const uint8_t* stored, Fp8 type, MatView<float> out,
                    const std::byte* ahead = nullptr);

}  // namespace kva
