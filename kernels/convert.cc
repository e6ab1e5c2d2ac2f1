#include "kernels/convert.h"

#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/convert.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

template <class Type>
HWY_INLINE void Widen(const void* source, Type type, float* HWY_RESTRICT values, int64_t count) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  with_stored(type, [&](auto stored) {
    using S = decltype(stored);
    const auto* from = static_cast<const typename S::Stored*>(source);
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) hn::StoreU(S::load(d, from + i), d, values + i);
    for (; i < count; ++i) values[i] = S::one(from + i);
  });
}

void ToF32(const void* source, DType type, float* values, int64_t count) {
  Widen(source, type, values, count);
}
void Fp8ToF32(const uint8_t* source, Fp8 type, float* values, int64_t count) {
  Widen(source, type, values, count);
}

// Returns how many values were converted, from the front.
int64_t ToF16Vectors(const float* HWY_RESTRICT values, uint16_t* HWY_RESTRICT target, int64_t count) {
  int64_t i = 0;
  if constexpr (kSimdHalf) {
    const hn::ScalableTag<float> d;
    const hn::Rebind<hwy::float16_t, decltype(d)> half;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    for (; i + lanes <= count; i += lanes)
      hn::StoreU(hn::DemoteTo(half, hn::LoadU(d, values + i)), half,
                 reinterpret_cast<hwy::float16_t*>(target + i));
  }
  return i;
}

int64_t ToBF16Vectors(const float* HWY_RESTRICT values, uint16_t* HWY_RESTRICT target, int64_t count) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const hn::Rebind<uint16_t, decltype(d)> half;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto magnitude_bits = hn::Set(du, 0x7fffffffu);
  const auto infinity = hn::Set(du, 0x7f800000u);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto bits = hn::BitCast(du, hn::LoadU(d, values + i));
    const auto upper = hn::ShiftRight<16>(bits);
    const auto odd = hn::And(upper, hn::Set(du, 1u));
    const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7fffu)), odd));
    const auto is_nan = hn::Gt(hn::And(bits, magnitude_bits), infinity);
    const auto quiet = hn::Or(upper, hn::Set(du, 0x40u));
    const auto codes = hn::BitCast(hn::RebindToSigned<decltype(d)>(), hn::IfThenElse(is_nan, quiet, rounded));
    hn::StoreU(hn::DemoteTo(half, codes), half, target + i);
  }
  return i;
}

int64_t ToFp8Vectors(const float* HWY_RESTRICT values, Fp8 type, uint8_t* HWY_RESTRICT codes, int64_t count) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> words;
  const hn::Rebind<uint8_t, decltype(d)> bytes;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const bool e4m3 = type == Fp8::kE4M3;
  const int dropped = 23 - (e4m3 ? 3 : 2);
  const int32_t smallest = e4m3 ? -6 : -14;  // exponent of the smallest normal number
  const auto most = hn::Set(d, e4m3 ? 448.0f : 57344.0f);
  const auto normal = hn::Set(d, std::ldexp(1.0f, smallest));
  // Whose last bit is worth a step of the numbers below the smallest normal one.
  const auto large = hn::Set(d, std::ldexp(1.0f, smallest + dropped));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto value = hn::LoadU(d, values + i);
    const auto nan = hn::RebindMask(words, hn::IsNaN(value));
    const auto sign = hn::And(hn::ShiftRight<24>(hn::BitCast(words, value)), hn::Set(words, 0x80));
    const auto size = hn::Min(hn::Abs(value), most);
    const auto bits = hn::BitCast(words, size);
    const auto odd = hn::And(hn::ShiftRightSame(bits, dropped), hn::Set(words, 1));
    const auto rounded = hn::Add(hn::Add(bits, hn::Set(words, (1 << (dropped - 1)) - 1)), odd);
    const auto code = hn::Sub(hn::ShiftRightSame(rounded, dropped),
                              hn::Set(words, (126 + smallest) * (1 << (23 - dropped))));
    const auto steps = hn::Sub(hn::BitCast(words, hn::Add(size, large)), hn::BitCast(words, large));
    const auto small = hn::RebindMask(words, hn::Lt(size, normal));
    const auto found =
        hn::IfThenElse(nan, hn::Set(words, e4m3 ? 0x7f : 0x7e), hn::IfThenElse(small, steps, code));
    hn::StoreU(hn::DemoteTo(bytes, hn::Or(sign, found)), bytes, codes + i);
  }
  return i;
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {
namespace {

HWY_EXPORT(ToF32);
HWY_EXPORT(Fp8ToF32);
HWY_EXPORT(ToF16Vectors);
HWY_EXPORT(ToBF16Vectors);
HWY_EXPORT(ToFp8Vectors);

}  // namespace

void to_f32(const void* source, DType type, float* values, int64_t count) {
  HWY_DYNAMIC_DISPATCH(ToF32)(source, type, values, count);
}

void fp8_to_f32(const uint8_t* codes, Fp8 type, float* values, int64_t count) {
  HWY_DYNAMIC_DISPATCH(Fp8ToF32)(codes, type, values, count);
}

void fp8_from_f32(const float* values, Fp8 type, uint8_t* codes, int64_t count) {
  for (int64_t i = HWY_DYNAMIC_DISPATCH(ToFp8Vectors)(values, type, codes, count); i < count; ++i)
    codes[i] = fp8_from_f32(values[i], type);
}

void from_f32(const float* values, DType type, void* target, int64_t count) {
  if (type == DType::kF32) {
    if (count > 0) std::memcpy(target, values, static_cast<std::size_t>(count) * sizeof(float));
    return;
  }
  auto* codes = static_cast<uint16_t*>(target);
  if (type == DType::kF16) {
    for (int64_t i = HWY_DYNAMIC_DISPATCH(ToF16Vectors)(values, codes, count); i < count; ++i)
      codes[i] = f16_from_f32(values[i]);
  } else {
    for (int64_t i = HWY_DYNAMIC_DISPATCH(ToBF16Vectors)(values, codes, count); i < count; ++i)
      codes[i] = bf16_from_f32(values[i]);
  }
}

}  // namespace kva
#endif
