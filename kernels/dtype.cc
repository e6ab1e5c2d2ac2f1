#include "kernels/dtype.h"

#include <algorithm>
#include <cctype>
#include <string>

#include "kernels/value_math.h"

namespace kva {

std::optional<DType> parse_dtype(std::string_view name) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  if (lower == "f32" || lower == "fp32" || lower == "float32" || lower == "float") return DType::kF32;
  if (lower == "f16" || lower == "fp16" || lower == "float16" || lower == "half") return DType::kF16;
  if (lower == "bf16" || lower == "bfloat16") return DType::kBF16;
  return std::nullopt;
}

uint16_t bf16_from_f32(float value) { return bf16_code(value); }
float f32_from_bf16(uint16_t value) { return bf16_value(value); }
uint16_t f16_from_f32(float value) { return f16_code(value); }
float f32_from_f16(uint16_t value) { return f16_value(value); }

}  // namespace kva
