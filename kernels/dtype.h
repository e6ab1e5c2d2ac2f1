// Element types of weights, pages and captures, and conversion of one value. Bulk conversion is in
// kernels/convert.h.
#pragma once

#include <bit>
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
inline uint16_t bf16_from_f32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
inline float f32_from_bf16(uint16_t value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

// IEEE 754 binary16; rounds to nearest even, overflows to infinity, keeps subnormals and NaN.
uint16_t f16_from_f32(float value);
float f32_from_f16(uint16_t value);

}  // namespace kva
