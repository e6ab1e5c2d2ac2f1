#include "compressors/codecs/fp8_codec.h"

#include <array>
#include <bit>
#include <cmath>
#include <limits>

namespace kva {
namespace {

struct Layout {
  int mantissa_bits;
  int bias;
  uint8_t largest;  // bits of the largest finite number
  uint8_t nan;
};

constexpr Layout layout_of(Fp8 type) {
  return type == Fp8::kE4M3 ? Layout{3, 7, 0x7e, 0x7f} : Layout{2, 15, 0x7b, 0x7e};
}

std::array<float, 256> table_of(Fp8 type) {
  std::array<float, 256> table;
  for (int bits = 0; bits < 256; ++bits)
    table[static_cast<std::size_t>(bits)] = f32_from_fp8(static_cast<uint8_t>(bits), type);
  return table;
}

class Fp8Codec : public SideCodec {
 public:
  explicit Fp8Codec(Fp8 type) : type_(type), values_(table_of(type)) {}

  std::string name() const override { return type_ == Fp8::kE4M3 ? "dense(fp8_e4m3)" : "dense(fp8_e5m2)"; }
  int64_t bytes(int64_t tokens, int64_t width) const override { return tokens * width; }

  void encode(MatView<const float> rows, const SideData&, std::byte* payload) const override {
    for (int64_t t = 0; t < rows.rows; ++t)
      for (int64_t c = 0; c < rows.cols; ++c)
        payload[t * rows.cols + c] = static_cast<std::byte>(fp8_from_f32(rows.at(t, c), type_));
  }
  void decode(const SideData& side, float*, MatView<float> rows) const override {
    for (int64_t t = 0; t < rows.rows; ++t)
      for (int64_t c = 0; c < rows.cols; ++c)
        rows.at(t, c) = values_[static_cast<std::size_t>(side.payload[t * rows.cols + c])];
  }

  CodecSpec spec() const override { return {.kind = name()}; }

 private:
  Fp8 type_;
  std::array<float, 256> values_;
};

}  // namespace

float f32_from_fp8(uint8_t bits, Fp8 type) {
  const Layout layout = layout_of(type);
  const int magnitude = bits & 0x7f;
  const float sign = (bits & 0x80) != 0 ? -1.0f : 1.0f;
  if (magnitude > layout.largest) {
    const bool infinite = type == Fp8::kE5M2 && magnitude == 0x7c;
    return sign *
           (infinite ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN());
  }
  const int exponent = magnitude >> layout.mantissa_bits;
  const int mantissa = magnitude & ((1 << layout.mantissa_bits) - 1);
  const int significand = exponent == 0 ? mantissa : mantissa + (1 << layout.mantissa_bits);
  return sign * std::ldexp(static_cast<float>(significand),
                           std::max(exponent, 1) - layout.bias - layout.mantissa_bits);
}

uint8_t fp8_from_f32(float value, Fp8 type) {
  const Layout layout = layout_of(type);
  const auto sign = static_cast<uint8_t>(std::signbit(value) ? 0x80 : 0);
  if (std::isnan(value)) return static_cast<uint8_t>(sign | layout.nan);
  const float size = std::abs(value);
  if (size >= f32_from_fp8(layout.largest, type)) return static_cast<uint8_t>(sign | layout.largest);
  // The spacing of the numbers around it; nearbyint() rounds halves to even, and codes are as even as their
  // significands.
  const int exponent = std::max(size > 0.0f ? std::ilogb(size) : 1 - layout.bias, 1 - layout.bias);
  const auto steps = static_cast<int>(std::nearbyint(std::ldexp(size, layout.mantissa_bits - exponent)));
  // Steps of 2^mantissa_bits carry into the exponent by themselves.
  const int code = ((exponent + layout.bias - 1) << layout.mantissa_bits) + steps;
  return static_cast<uint8_t>(sign | code);
}

std::shared_ptr<const SideCodec> make_fp8_codec(Fp8 type) { return std::make_shared<Fp8Codec>(type); }

}  // namespace kva
