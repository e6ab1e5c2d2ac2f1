#include "kernels/sparse.h"

#include <algorithm>

#include "kernels/packed_math.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/sparse.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The upper halves of products of 32 bits.
template <class D>
HWY_INLINE hn::Vec<D> MulHigh(D d, hn::Vec<D> a, hn::Vec<D> b) {
  const hn::RepartitionToWide<D> wide;
  const auto odd_a = hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, a)));
  const auto odd_b = hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, b)));
  const auto even = hn::ShiftRight<32>(hn::MulEven(a, b));
  const auto odd = hn::And(hn::MulEven(odd_a, odd_b), hn::Set(wide, uint64_t{0xffffffff} << 32));
  return hn::BitCast(d, hn::Or(even, odd));
}

// Returns how many places were read, from the front.
int64_t UnpackPlaces(const uint8_t* list, int bits, int64_t count, uint32_t last, uint32_t width,
                     int32_t* HWY_RESTRICT tokens, int32_t* HWY_RESTRICT channels) {
  int64_t i = 0;
#if HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86
  // place / width is the upper half of place * by_width, exactly where place * width < 2^32.
  if (width == 1 || uint64_t{last} * width >= uint64_t{1} << 32) return 0;
  const uint32_t by_width = static_cast<uint32_t>((uint64_t{1} << 32) / width) + 1;
  const hn::CappedTag<uint32_t, 16> d;
  const hn::RebindToSigned<decltype(d)> signed_words;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto* words = reinterpret_cast<const uint32_t*>(list);
  for (; i + lanes <= count; i += lanes) {
    const auto first = hn::Iota(d, 0);
    const auto at = hn::Mul(hn::Add(first, hn::Set(d, static_cast<uint32_t>(i))),
                            hn::Set(d, static_cast<uint32_t>(bits)));
    const auto bytes = hn::BitCast(signed_words, hn::ShiftRight<3>(at));
    const auto window = hn::GatherOffset(d, words, bytes);
    const auto written = hn::And(hn::Shr(window, hn::And(at, hn::Set(d, 7u))), hn::Set(d, (1u << bits) - 1));
    const auto place = hn::Min(written, hn::Set(d, last));
    const auto token = MulHigh(d, place, hn::Set(d, by_width));
    hn::StoreU(hn::BitCast(signed_words, token), signed_words, tokens + i);
    hn::StoreU(hn::BitCast(signed_words, hn::Sub(place, hn::Mul(token, hn::Set(d, width)))), signed_words,
               channels + i);
  }
#else
  (void)list, (void)bits, (void)count, (void)last, (void)width, (void)tokens, (void)channels;
#endif
  return i;
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {
namespace {

HWY_EXPORT(UnpackPlaces);

// out(q, to[i]) += left(q, from[i]) * values[i] for kLeft rows, from row `first` on.
template <int kLeft>
void add_rows(MatView<const float> left, const SparseNumbers& numbers, const int32_t* from, const int32_t* to,
              int64_t first, MatView<float> out) {
  const float* of_left = left.row(first);
  float* of_out = out.row(first);
  for (int64_t i = 0; i < numbers.count; ++i) {
    const float* factor = of_left + from[i];
    float* target = of_out + to[i];
    const float value = numbers.values[i];
    for (int q = 0; q < kLeft; ++q) target[q * out.stride] += factor[q * left.stride] * value;
  }
}

void add(MatView<const float> left, const SparseNumbers& numbers, const int32_t* from, const int32_t* to,
         MatView<float> out) {
  KVA_CHECK(left.rows == out.rows, "one row of results a row of factors");
  for (int64_t first = 0; first < out.rows;) {
    const int64_t count = std::min<int64_t>(out.rows - first, 4);
    if (count == 4) add_rows<4>(left, numbers, from, to, first, out);
    if (count == 3) add_rows<3>(left, numbers, from, to, first, out);
    if (count == 2) add_rows<2>(left, numbers, from, to, first, out);
    if (count == 1) add_rows<1>(left, numbers, from, to, first, out);
    first += count;
  }
}

}  // namespace

void unpack_places(const std::byte* list, int bits, int64_t count, int64_t last, int64_t width,
                   int32_t* tokens, int32_t* channels) {
  KVA_CHECK(bits >= 1 && bits <= 24 && last >= 0 && last < int64_t{1} << bits && width >= 1,
            "places of a page side");
  const auto* bytes = reinterpret_cast<const uint8_t*>(list);
  int64_t i = HWY_DYNAMIC_DISPATCH(UnpackPlaces)(bytes, bits, count, static_cast<uint32_t>(last),
                                                 static_cast<uint32_t>(width), tokens, channels);
  for (; i < count; ++i) {
    const int64_t place = std::min<int64_t>(listed_place(bytes, bits, i), last);
    tokens[i] = static_cast<int32_t>(place / width);
    channels[i] = static_cast<int32_t>(place % width);
  }
}

void sparse_scores(MatView<const float> queries, const SparseNumbers& numbers, MatView<float> scores) {
  add(queries, numbers, numbers.channels, numbers.tokens, scores);
}

void sparse_accumulate(MatView<const float> weights, const SparseNumbers& numbers, MatView<float> out) {
  add(weights, numbers, numbers.tokens, numbers.channels, out);
}

}  // namespace kva
#endif
