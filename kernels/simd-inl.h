// Loads of stored values as f32 vectors and sums of lanes, for the SIMD kernels of this folder (included once
// per SIMD target by Highway's foreach_target).
#if defined(KVA_KERNELS_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVA_KERNELS_SIMD_INL_H_
#undef KVA_KERNELS_SIMD_INL_H_
#else
#define KVA_KERNELS_SIMD_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/fp8.h"

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Highway's emulation of halves before F16C loses infinities and subnormals; such targets go value by value.
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX2
inline constexpr bool kSimdHalf = false;
#else
inline constexpr bool kSimdHalf = true;
#endif

// Storage types. Stored is the memory type; one() converts one value, load() a vector's worth from p; both
// give it over kUnit, a power of two.
struct StoredF32 {
  using Stored = float;
  static constexpr float kUnit = 1.0f;
  static float one(const Stored* p) { return *p; }
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const Stored* p) {
    return hn::LoadU(d, p);
  }
};

struct StoredF16 {
  using Stored = uint16_t;
  static constexpr float kUnit = 1.0f;
  static float one(const Stored* p) { return f32_from_f16(*p); }
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const Stored* p) {
    if constexpr (kSimdHalf) {
      const hn::Rebind<hwy::float16_t, D> half;
      return hn::PromoteTo(d, hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(p)));
    } else {
      HWY_ALIGN float values[hn::MaxLanes(d)];
      for (size_t i = 0; i < hn::Lanes(d); ++i) values[i] = f32_from_f16(p[i]);
      return hn::Load(d, values);
    }
  }
};

struct StoredBF16 {
  using Stored = uint16_t;
  static constexpr float kUnit = 1.0f;
  static float one(const Stored* p) { return f32_from_bf16(*p); }
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const Stored* p) {
    const hn::RebindToUnsigned<D> bits;
    const hn::Rebind<uint16_t, D> half;
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(bits, hn::LoadU(half, p))));
  }
};

// A vector's worth of 8-bit floats, widened to 16-bit words.
template <class D>
HWY_INLINE hn::Vec<hn::Rebind<uint16_t, D>> LoadBytes(D, const uint8_t* p) {
  const hn::Rebind<uint8_t, D> bytes;
  const hn::Rebind<uint16_t, D> words;
  return hn::PromoteTo(words, hn::LoadU(bytes, p));
}

template <class D>
HWY_INLINE hn::Vec<D> WidenHalves(D d, hn::Vec<hn::Rebind<uint16_t, D>> words) {
  const hn::Rebind<hwy::float16_t, D> half;
  return hn::PromoteTo(d, hn::BitCast(half, words));
}

template <Fp8 type>
struct StoredFp8 {
  using Stored = uint8_t;
  static constexpr float kUnit = 1.0f;
  static float one(const Stored* p) { return f32_from_fp8(*p, type); }
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const Stored* p) {
    if constexpr (!kSimdHalf) {
      HWY_ALIGN float values[hn::MaxLanes(d)];
      for (size_t i = 0; i < hn::Lanes(d); ++i) values[i] = one(p + i);
      return hn::Load(d, values);
    } else if constexpr (type == Fp8::kE5M2) {
      return WidenHalves(d, hn::ShiftLeft<8>(LoadBytes(d, p)));
    } else {
      const hn::Rebind<uint16_t, D> words;
      const auto codes = LoadBytes(d, p);
      const auto magnitude = hn::And(codes, hn::Set(words, uint16_t{0x7f}));
      const auto nan = hn::Eq(magnitude, hn::Set(words, uint16_t{0x7f}));
      const auto bits = hn::IfThenElse(nan, hn::Set(words, uint16_t{0x7e00}), hn::ShiftLeft<7>(magnitude));
      const auto sign = hn::ShiftLeft<8>(hn::Xor(codes, magnitude));
      return hn::Mul(WidenHalves(d, hn::Or(bits, sign)), hn::Set(d, 256.0f));
    }
  }
};

// E4M3 of which no number is a NaN: its bits are those of an f16 of 1 / 256 of the number, but for the place
// of the sign.
struct StoredFiniteE4M3 {
  using Stored = uint8_t;
  static constexpr float kUnit = 256.0f;
  static float one(const Stored* p) { return f32_from_fp8(*p, Fp8::kE4M3) / kUnit; }
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const Stored* p) {
    if constexpr (!kSimdHalf) {
      return hn::Mul(StoredFp8<Fp8::kE4M3>::load(d, p), hn::Set(d, 1.0f / kUnit));
    } else {
      const hn::Rebind<int8_t, D> bytes;
      const hn::Rebind<int16_t, D> words;
      const hn::Rebind<uint16_t, D> bits;
      const auto codes = hn::PromoteTo(words, hn::LoadU(bytes, reinterpret_cast<const int8_t*>(p)));
      // The sign's own bit, and the copies of it that widening made, without the lowest of those.
      return WidenHalves(d, hn::And(hn::BitCast(bits, hn::ShiftLeft<7>(codes)), hn::Set(bits, 0xbfff)));
    }
  }
};
struct FiniteE4M3 {};

// Calls body(StoredX()) for the storage type of `type`.
template <class Body>
HWY_INLINE void with_stored(DType type, const Body& body) {
  switch (type) {
    case DType::kF32: return body(StoredF32());
    case DType::kF16: return body(StoredF16());
    case DType::kBF16: return body(StoredBF16());
  }
}

template <class Body>
HWY_INLINE void with_stored(Fp8 type, const Body& body) {
  if (type == Fp8::kE4M3) return body(StoredFp8<Fp8::kE4M3>());
  body(StoredFp8<Fp8::kE5M2>());
}

template <class Body>
HWY_INLINE void with_stored(FiniteE4M3, const Body& body) {
  body(StoredFiniteE4M3());
}

// The lanes of four vectors taken together by op(a, b), each one's as results[0..3].
template <class D, class Op>
HWY_INLINE void ReduceFour(D d, hn::Vec<D> a, hn::Vec<D> b, hn::Vec<D> c, hn::Vec<D> e, const Op& op,
                           float* results) {
#if HWY_TARGET == HWY_SCALAR
  (void)d, (void)op;
  results[0] = hn::GetLane(a);
  results[1] = hn::GetLane(b);
  results[2] = hn::GetLane(c);
  results[3] = hn::GetLane(e);
#else
  const hn::Repartition<double, D> pairs;
  const auto ab = hn::BitCast(pairs, op(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  const auto ce = hn::BitCast(pairs, op(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e)));
  HWY_ALIGN float lanes[hn::MaxLanes(d)];
  hn::Store(op(hn::BitCast(d, hn::InterleaveLower(pairs, ab, ce)),
               hn::BitCast(d, hn::InterleaveUpper(pairs, ab, ce))),
            d, lanes);
  const hn::CappedTag<float, 4> four;
  auto all = hn::Load(four, lanes);
  for (size_t i = 4; i < hn::Lanes(d); i += 4) all = op(all, hn::Load(four, lanes + i));
  hn::StoreU(all, four, results);
#endif
}

// The sums of four vectors' lanes, as sums[0..3].
template <class D>
HWY_INLINE void SumFour(D d, hn::Vec<D> a, hn::Vec<D> b, hn::Vec<D> c, hn::Vec<D> e, float* sums) {
  ReduceFour(
      d, a, b, c, e, [](auto x, auto y) HWY_ATTR { return hn::Add(x, y); }, sums);
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
