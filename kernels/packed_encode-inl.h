// What the encoding kernels share (included once per SIMD target by Highway's foreach_target).
#if defined(KVA_KERNELS_PACKED_ENCODE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVA_KERNELS_PACKED_ENCODE_INL_H_
#undef KVA_KERNELS_PACKED_ENCODE_INL_H_
#else
#define KVA_KERNELS_PACKED_ENCODE_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Calls body(tag, column) for vectors that cover [first, last), single numbers at the end.
template <class Body>
HWY_INLINE void for_columns(int64_t first, int64_t last, const Body& body) {
  const hn::CappedTag<float, 16> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t c = first;
  for (; c + lanes <= last; c += lanes) body(d, c);
  for (; c < last; ++c) body(hn::CappedTag<float, 1>(), c);
}

// Where kept[0], kept[1], ... is set.
template <class D>
HWY_INLINE hn::Mask<D> IsKept(D d, const uint8_t* kept) {
  const hn::RebindToSigned<D> words;
  const hn::Rebind<uint8_t, D> bytes;
  return hn::RebindMask(d, hn::Gt(hn::PromoteTo(words, hn::LoadU(bytes, kept)), hn::Zero(words)));
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
