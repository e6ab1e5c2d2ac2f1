#include "kernels/packed_encode.h"

#include <algorithm>
#include <vector>

#include "kernels/check.h"
#include "kernels/fetch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/packed_encode.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/packed_encode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

// A page of 64 x 64 numbers in the first-level cache is read twice, for the ranges and the codes: 512 loads,
// at two a cycle 256 cycles. Reading it from memory takes five times as long, so that is the floor, and the
// work has to fit beside it: no division, no sum of lanes for a row of its own, and a few rows at a time, so
// that the next ones are on their way meanwhile.

// Codes of some numbers, by scales and zeros that are the same for all or one for each.
struct Coding {
  const float* scales;
  const float* inverses;  // 0 where the scale is 0
  const float* zeros;
  int offset;  // the code of 0
  int most;
};

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
// The codes of four vectors of whole steps: a code is one plus the offset, cut off at 0 and the last one.
template <class D>
HWY_INLINE void StoreFour(D, const hn::Vec<D>* steps, const Coding& by, uint8_t* HWY_RESTRICT codes) {
  const auto words = [&](int v) HWY_ATTR { return _mm512_cvtps_epi32(steps[v].raw); };
  const __m512i offset = _mm512_set1_epi16(static_cast<int16_t>(by.offset));
  const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(words(0), words(1)), offset);
  const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(words(2), words(3)), offset);
  // Packing takes four lanes of each vector in turn.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i ordered = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
  const __m512i most = _mm512_set1_epi8(static_cast<char>(by.most));
  _mm512_storeu_si512(codes, _mm512_min_epu8(ordered, most));
}
#endif

// The codes of kVectors vectors of columns from c on; scales and zeros from column `first` on. They are
// rounded quotients of f32, as a division gives them, mostly without one: a product with the inverse is
// within 3 * 2^-24 of the quotient, relatively, and where quotients are at most 256 only those within 2^-14
// of a half can round to another integer. Larger ones are cut off all the same.
template <int kVectors, bool kOne, bool kKept, class D>
HWY_INLINE void CodeVectors(D d, const float* HWY_RESTRICT row, const uint8_t* HWY_RESTRICT kept,
                            int64_t first, int64_t c, const Coding& by, uint8_t* HWY_RESTRICT codes) {
  const hn::RebindToUnsigned<D> words;
  const hn::Rebind<uint8_t, D> bytes;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto of = [&](const float* factors, int64_t at)
                      HWY_ATTR { return kOne ? hn::Set(d, *factors) : hn::LoadU(d, factors + at - first); };
  const auto number = [&](int64_t at) HWY_ATTR { return hn::Sub(hn::LoadU(d, row + at), of(by.zeros, at)); };
  // So many steps are no code's, and have integers.
  const auto beyond = hn::Set(d, 1024.0f);
  hn::Vec<D> steps[kVectors];
  auto farthest = hn::Zero(d);
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = c + v * lanes;
    const auto product = hn::Min(hn::Mul(number(at), of(by.inverses, at)), beyond);
    steps[v] = hn::Round(product);
    farthest = hn::Max(farthest, hn::Abs(hn::Sub(product, steps[v])));
  }
  if (HWY_UNLIKELY(!hn::AllTrue(d, hn::Le(farthest, hn::Set(d, 0.5f - 0x1p-14f))))) {
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = c + v * lanes;
      const auto scale = of(by.scales, at);
      const auto quotient = hn::Min(hn::Div(number(at), scale), beyond);
      steps[v] = hn::IfThenElseZero(hn::Gt(scale, hn::Zero(d)), hn::Round(quotient));
    }
  }
  if constexpr (kKept) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      steps[v] = hn::IfThenElse(IsKept(d, kept + c + v * lanes), hn::Zero(d), steps[v]);
  }
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  if constexpr (kVectors == 4) return StoreFour(d, steps, by, codes + c);
#endif
  const auto least = hn::Set(d, static_cast<float>(-by.offset));
  const auto most = hn::Set(d, static_cast<float>(by.most - by.offset));
  // Added to 2^23 a code stands in the lowest bits as it is.
  const auto to_bits = hn::Set(d, 0x1p23f + static_cast<float>(by.offset));
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const auto code = hn::Add(hn::Min(hn::Max(steps[v], least), most), to_bits);
    hn::StoreU(hn::TruncateTo(bytes, hn::BitCast(words, code)), bytes, codes + c + v * lanes);
  }
}

// codes[c] for the columns [first, last).
template <bool kOne, bool kKept>
HWY_INLINE void CodeColumns(const float* row, const uint8_t* kept, int64_t first, int64_t last,
                            const Coding& by, uint8_t* codes) {
  const hn::CappedTag<float, 16> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t c = first;
  for (; c + 4 * lanes <= last; c += 4 * lanes)
    CodeVectors<4, kOne, kKept>(d, row, kept, first, c, by, codes);
  for (; c + lanes <= last; c += lanes) CodeVectors<1, kOne, kKept>(d, row, kept, first, c, by, codes);
  for (; c < last; ++c)
    CodeVectors<1, kOne, kKept>(hn::CappedTag<float, 1>(), row, kept, first, c, by, codes);
}

// The full blocks of a row.
template <int bits>
HWY_INLINE void PackBlocks(const uint8_t* HWY_RESTRICT codes, int64_t blocks, uint8_t* HWY_RESTRICT packed) {
  constexpr int kSlices = bits == 3 ? 8 : 8 / bits;
  constexpr int kLaneBytes = bits == 3 ? 3 : 1;
  constexpr int64_t kLanes = PackedShape::kLanes;
  const hn::CappedTag<int32_t, 16> words;
  const hn::Rebind<uint8_t, decltype(words)> bytes;
  const auto step = static_cast<int64_t>(hn::Lanes(words));
#if HWY_TARGET != HWY_SCALAR
  if constexpr (bits == 4 || bits == 2) {
    // Slices are below 2^bits: shifted as pairs, none reaches the neighbouring byte.
    const hn::FixedTag<uint8_t, 16> lanes;
    const hn::FixedTag<uint16_t, 8> pairs;
    for (int64_t block = 0; block < blocks; ++block, codes += kSlices * kLanes, packed += kLanes) {
      auto bytes_of_block = hn::LoadU(lanes, codes);
#pragma GCC unroll 4
      for (int j = 1; j < kSlices; ++j) {
        const auto slice = hn::BitCast(pairs, hn::LoadU(lanes, codes + j * kLanes));
        bytes_of_block = hn::Or(bytes_of_block, hn::BitCast(lanes, hn::ShiftLeftSame(slice, bits * j)));
      }
      hn::StoreU(bytes_of_block, lanes, packed);
    }
    return;
  }
#endif
  for (int64_t block = 0; block < blocks; ++block, codes += kSlices * kLanes, packed += kLaneBytes * kLanes) {
    for (int64_t lane = 0; lane < kLanes; lane += step) {
      auto word = hn::PromoteTo(words, hn::LoadU(bytes, codes + lane));
#pragma GCC unroll 8
      for (int j = 1; j < kSlices; ++j) {
        const auto slice = hn::PromoteTo(words, hn::LoadU(bytes, codes + j * kLanes + lane));
        word = hn::Or(word, hn::ShiftLeftSame(slice, bits * j));
      }
#pragma GCC unroll 3
      for (int plane = 0; plane < kLaneBytes; ++plane) {
        const auto byte = hn::And(hn::ShiftRightSame(word, 8 * plane), hn::Set(words, 255));
        hn::StoreU(hn::DemoteTo(bytes, byte), bytes, packed + plane * kLanes + lane);
      }
    }
  }
}

HWY_INLINE void PackBlocks(const PackedShape& shape, const uint8_t* codes, uint8_t* packed) {
  switch (shape.bits) {
    case 2: return PackBlocks<2>(codes, shape.full_blocks, packed);
    case 3: return PackBlocks<3>(codes, shape.full_blocks, packed);
    case 4: return PackBlocks<4>(codes, shape.full_blocks, packed);
    default: return PackBlocks<8>(codes, shape.full_blocks, packed);
  }
}

void PackRow(const PackedShape& shape, const uint8_t* codes, std::byte* packed) {
  PackBlocks(shape, codes, reinterpret_cast<uint8_t*>(packed));
  if (shape.tail_lanes > 0) pack_tail(shape, codes, packed);
}

#if HWY_TARGET != HWY_SCALAR
// Sixteen rows and columns: pairs of rows become columns of two, and so on.
HWY_INLINE void TransposeBytesBlock(const uint8_t* HWY_RESTRICT from, int64_t from_stride,
                                    uint8_t* HWY_RESTRICT to, int64_t to_stride) {
  const hn::FixedTag<uint8_t, 16> d;
  hn::Vec<decltype(d)> a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = hn::LoadU(d, from + i * from_stride);
  // Of both, block i of `width` vectors: rows 16 / width * i and on; vector j of it: columns 16 / width * j
  // on.
  const auto pair = [&](auto wide, auto& in, auto& out, int width) HWY_ATTR {
#pragma GCC unroll 16
    for (int i = 0; i < 16 / width; i += 2) {
#pragma GCC unroll 8
      for (int j = 0; j < width; ++j) {
        const auto upper = hn::BitCast(wide, in[i * width + j]);
        const auto lower = hn::BitCast(wide, in[(i + 1) * width + j]);
        out[i * width + 2 * j] = hn::BitCast(d, hn::InterleaveLower(wide, upper, lower));
        out[i * width + 2 * j + 1] = hn::BitCast(d, hn::InterleaveUpper(wide, upper, lower));
      }
    }
  };
  pair(d, a, b, 1);
  pair(hn::FixedTag<uint16_t, 8>(), b, a, 2);
  pair(hn::FixedTag<uint32_t, 4>(), a, b, 4);
  pair(hn::FixedTag<uint64_t, 2>(), b, a, 8);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) hn::StoreU(a[i], d, to + i * to_stride);
}
#endif

// from: [rows, cols]; to: [cols, rows].
void TransposeBytes(const uint8_t* from, int64_t rows, int64_t cols, uint8_t* to) {
  int64_t r = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; r + 16 <= rows; r += 16) {
    int64_t c = 0;
    for (; c + 16 <= cols; c += 16) TransposeBytesBlock(from + r * cols + c, cols, to + c * rows + r, rows);
    for (; c < cols; ++c)
      for (int64_t i = r; i < r + 16; ++i) to[c * rows + i] = from[i * cols + c];
  }
#endif
  for (; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) to[c * rows + r] = from[r * cols + c];
}

// What PackNumbers() is given.
struct Numbers {
  MatView<const float> rows;
  const PackedPage& page;
  const uint8_t* kept;
  const float* factors;  // scales, zeros, inverses
  uint8_t* codes;
  std::byte* packed;
};

// kByToken: whether a scale is of a token; else of a channel.
template <bool kByToken, bool kKept>
HWY_INLINE void PackRows(const Numbers& of) {
  const PackedPage& page = of.page;
  const MatView<const float> rows = of.rows;
  const int64_t count = page.scale_count();
  const float* factors = of.factors;
  const int offset = page.zeros ? 0 : 1 << (page.bits - 1);
  const int most = (1 << page.bits) - 1;
  const PackedShape shape(page.bits, rows.cols);
  // Codes of 8 bits are packed as they are.
  const bool packs = !page.by_channel && page.bits < 8;
  const int64_t group = kByToken ? std::min(page.group, rows.cols) : rows.cols;
  for (int64_t r = 0; r < rows.rows; ++r) {
    const uint8_t* of_row = kKept ? of.kept + r * rows.cols : nullptr;
    std::byte* of_packed = of.packed + r * shape.row_bytes();
    uint8_t* of_codes = page.by_channel ? of.codes + r * rows.cols
                        : packs         ? of.codes
                                        : reinterpret_cast<uint8_t*>(of_packed);
    int64_t at = kByToken ? r : page.group >= rows.rows ? 0 : r / page.group * rows.cols;
    for (int64_t first = 0; first < rows.cols; first += group, at += rows.rows)
      CodeColumns<kByToken, kKept>(
          rows.row(r), of_row, first, std::min(rows.cols, first + group),
          {factors + at, factors + 2 * count + at, factors + count + at, offset, most}, of_codes);
    if (packs) PackRow(shape, of_codes, of_packed);
  }
}

// factors: scales, zeros and room for the inverses, PackedPage::scale_count() of each, as packed_scales()
// lays them. codes: [rows.rows, rows.cols], or of one row where the codes are packed by row.
void PackNumbers(MatView<const float> rows, const PackedPage& page, const uint8_t* kept, float* factors,
                 uint8_t* codes, std::byte* packed) {
  const int64_t count = page.scale_count();
  float* HWY_RESTRICT inverses = factors + 2 * count;
  for (int64_t i = 0; i < count; ++i) inverses[i] = factors[i] > 0.0f ? 1.0f / factors[i] : 0.0f;
  const Numbers of{rows, page, kept, factors, codes, packed};
  const bool by_token = page.axis == ScaleAxis::kToken;
  if (by_token && kept) return PackRows<true, true>(of);
  if (by_token) return PackRows<true, false>(of);
  if (kept) return PackRows<false, true>(of);
  PackRows<false, false>(of);
}

// codes: [rows, cols]; each column becomes a packed row. turned: as many bytes.
void PackColumns(const uint8_t* codes, int64_t rows, int64_t cols, int bits, uint8_t* turned,
                 std::byte* packed) {
  if (bits == 8) return TransposeBytes(codes, rows, cols, reinterpret_cast<uint8_t*>(packed));
  TransposeBytes(codes, rows, cols, turned);
  const PackedShape shape(bits, rows);
  for (int64_t c = 0; c < cols; ++c, packed += shape.row_bytes()) PackRow(shape, turned + c * rows, packed);
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {
namespace {

HWY_EXPORT(PackColumns);
HWY_EXPORT(PackNumbers);
HWY_EXPORT(PackRow);

}  // namespace

void pack_row(const uint8_t* codes, int bits, int64_t width, std::byte* packed) {
  KVA_CHECK(bits == 8 || (bits >= 2 && bits <= 4), "codes of 8, 4, 3 or 2 bits");
  HWY_DYNAMIC_DISPATCH(PackRow)(PackedShape(bits, width), codes, packed);
}

namespace {

// Room that pages of a thread share: taking it anew costs as much as some rows.
struct Workspace {
  std::vector<float> factors;  // scales, zeros and inverses
  std::vector<float> ranges;
  std::vector<uint8_t> codes;

  static Workspace& of_thread() {
    static thread_local Workspace workspace;
    return workspace;
  }
};

template <class T>
T* at_least(std::vector<T>& room, int64_t count) {
  if (static_cast<int64_t>(room.size()) < count) room.resize(static_cast<std::size_t>(count));
  return room.data();
}

// Codes of the rows, which are some of a page's, packed where rows are tokens.
void code_rows(MatView<const float> rows, const PackedPage& page, const uint8_t* kept, Workspace& room,
               uint8_t* codes, std::byte* packed) {
  const int64_t count = page.scale_count();
  float* factors = at_least(room.factors, 3 * count);
  packed_scales(page, page.scales, factors);
  if (page.zeros)
    packed_scales(page, page.zeros, factors + count);
  else
    std::fill_n(factors + count, count, 0.0f);
  HWY_DYNAMIC_DISPATCH(PackNumbers)(rows, page, kept, factors, codes, packed);
}

// Room for the codes of a page, where its rows are channels, and of a row elsewhere.
uint8_t* code_room(const PackedPage& page, Workspace& room) {
  return at_least(room.codes, page.by_channel ? 2 * page.tokens * page.width : page.width);
}

void pack_channels(const PackedPage& page, uint8_t* codes, std::byte* packed) {
  if (page.by_channel) HWY_DYNAMIC_DISPATCH(PackColumns)
  (codes, page.tokens, page.width, page.bits, codes + page.tokens * page.width, packed);
}

}  // namespace

void pack_numbers(MatView<const float> rows, const PackedPage& page, const uint8_t* kept, std::byte* packed) {
  KVA_CHECK(rows.rows == page.tokens && rows.cols == page.width && !page.levels, "rows of the page's shape");
  Workspace& room = Workspace::of_thread();
  uint8_t* codes = code_room(page, room);
  code_rows(rows, page, kept, room, codes, packed);
  pack_channels(page, codes, packed);
}

bool encode_page(MatView<const float> rows, const PackedPage& shape, const uint8_t* kept, float most,
                 uint16_t* scales, uint16_t* zeros, std::byte* packed) {
  KVA_CHECK(rows.rows == shape.tokens && rows.cols == shape.width && !shape.levels,
            "rows of the page's shape");
  constexpr int64_t kRowsAtOnce = 16;
  Workspace& room = Workspace::of_thread();
  uint8_t* codes = code_room(shape, room);
  const bool by_token = shape.axis == ScaleAxis::kToken;
  const int64_t step = by_token ? kRowsAtOnce : std::max<int64_t>(1, rows.rows);
  const int64_t row_bytes = packed_row_bytes(shape.bits, shape.width);
  PackedPage part = shape;
  for (int64_t first = 0; first < rows.rows; first += step) {
    part.tokens = std::min(step, rows.rows - first);
    const int64_t at = by_token ? first * part.groups() : 0;
    const int64_t count = part.scale_count();
    part.scales = scales + at;
    part.zeros = zeros ? zeros + at : nullptr;
    const MatView<const float> some = rows.row_range(first, part.tokens);
    const uint8_t* some_kept = kept ? kept + first * rows.cols : nullptr;
    // The hardware's own prefetch stops at each page of memory.
    const int64_t next = std::min(step, rows.rows - first - part.tokens);
    if (rows.stride == rows.cols && next > 0)
      fetch(reinterpret_cast<const std::byte*>(rows.row(first + step)), next * rows.cols * 4);
    float* low = at_least(room.ranges, 2 * count);
    if (!group_ranges(some, part, some_kept, most, low, low + count)) return false;
    range_scales(low, low + count, count, part.bits, scales + at, zeros ? zeros + at : nullptr);
    code_rows(some, part, some_kept, room, shape.by_channel ? codes + first * rows.cols : codes,
              shape.by_channel ? packed : packed + first * row_bytes);
  }
  pack_channels(shape, codes, packed);
  return true;
}

}  // namespace kva
#endif
