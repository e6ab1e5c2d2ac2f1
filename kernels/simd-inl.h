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

// Storage types. Stored is the memory type; one() converts one value, load() a vector's worth from p.
struct StoredF32 {
  using Stored = float;
  static float one(const Stored* p) { return *p; }
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const Stored* p) {
    return hn::LoadU(d, p);
  }
};

struct StoredF16 {
  using Stored = uint16_t;
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
  static float one(const Stored* p) { return f32_from_bf16(*p); }
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const Stored* p) {
    const hn::RebindToUnsigned<D> bits;
    const hn::Rebind<uint16_t, D> half;
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(bits, hn::LoadU(half, p))));
  }
};

// Calls body(StoredX()) for the storage type of `type`.
template <class Body>
HWY_INLINE void with_stored(DType type, const Body& body) {
  switch (type) {
    case DType::kF32: return body(StoredF32());
    case DType::kF16: return body(StoredF16());
    case DType::kBF16: return body(StoredBF16());
  }
}

// The sums of four vectors' lanes, as sums[0..3].
template <class D>
HWY_INLINE void SumFour(D d, hn::Vec<D> a, hn::Vec<D> b, hn::Vec<D> c, hn::Vec<D> e, float* sums) {
#if HWY_TARGET == HWY_SCALAR
  (void)d;
  sums[0] = hn::GetLane(a);
  sums[1] = hn::GetLane(b);
  sums[2] = hn::GetLane(c);
  sums[3] = hn::GetLane(e);
#else
  const hn::Repartition<double, D> pairs;
  const auto ab = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  const auto ce = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e)));
  HWY_ALIGN float lanes[hn::MaxLanes(d)];
  hn::Store(hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, ab, ce)),
                    hn::BitCast(d, hn::InterleaveUpper(pairs, ab, ce))),
            d, lanes);
  const hn::CappedTag<float, 4> four;
  auto sum = hn::Load(four, lanes);
  for (size_t i = 4; i < hn::Lanes(d); i += 4) sum = hn::Add(sum, hn::Load(four, lanes + i));
  hn::StoreU(sum, four, sums);
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
