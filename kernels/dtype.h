// Element types of weights, pages and captures, and conversion of one value. Bulk conversion is in
// kernels/convert.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace kva {

enum class DType : uint8_t { kF32, kF16, kBF16 };

constexpr int64_t dtype_bytes(DType type) { return type == DType::kF32 ? 4 : 2; }

// Names as users of NumPy and vLLM spell them: "f32", "f16", "bf16".
constexpr std::string_view dtype_name(DType type) {
  switch (type) {
    case DType::kF32: return "f32";
    case DType::kF16: return "f16";
    case DType::kBF16: return "bf16";
  }
  return "?";
}

// Accepts "f32", "float32", "fp32" and so on, in any case; nullopt otherwise.
std::optional<DType> parse_dtype(std::string_view name);

// bfloat16 keeps the upper half of a float; rounds to nearest even, NaN stays NaN.
uint16_t bf16_from_f32(float value);
float f32_from_bf16(uint16_t value);

// IEEE 754 binary16; rounds to nearest even, overflows to infinity, keeps subnormals and NaN.
uint16_t f16_from_f32(float value);
float f32_from_f16(uint16_t value);

}  // namespace kva
