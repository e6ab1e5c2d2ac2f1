#include "kernels/packed_encode.h"

#include <algorithm>
#include <vector>

#include "kernels/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/packed_encode.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/packed_encode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kva {
namespace HWY_NAMESPACE {

// A page of 64 x 64 numbers in the first-level cache is read three times, for the bound, the ranges and the
// codes: 768 loads, at two a cycle 384 cycles, about a copy's time for the page and its codes. The rest has
// to stay under that: no division, no sum of lanes for a row of its own.

// Codes of some numbers, by scales and zeros that are the same for all or one for each.
struct Coding {
  const float* scales;
  const float* inverses;  // 0 where the scale is 0
  const float* zeros;
  bool one;
  float offset;  // the code of 0
  float most;
};

// Rounded quotients of f32, as a division gives them, mostly without one: a product with the inverse is
// within 3 * 2^-24 of the quotient, relatively, and where quotients are at most 256 only those within 2^-14
// of a half can round to another integer. Larger ones are cut off all the same.
template <class D>
HWY_INLINE hn::Vec<D> RoundedQuotient(D d, hn::Vec<D> number, hn::Vec<D> scale, hn::Vec<D> inverse) {
  const auto product = hn::Mul(number, inverse);
  const auto rounded = hn::Round(product);
  const auto close = hn::Gt(hn::Abs(hn::Sub(product, rounded)), hn::Set(d, 0.5f - 0x1p-14f));
  if (HWY_LIKELY(hn::AllFalse(d, close))) return rounded;
  return hn::IfThenElseZero(hn::Gt(scale, hn::Zero(d)), hn::Round(hn::Div(number, scale)));
}

// codes[c] for the columns [first, last); scales and zeros from 0 on.
template <bool kOne, bool kKept>
HWY_INLINE void CodeColumns(const float* HWY_RESTRICT row, const uint8_t* HWY_RESTRICT kept, int64_t first,
                            int64_t last, const Coding& by, uint8_t* HWY_RESTRICT codes) {
  for_columns(first, last, [&](auto d, int64_t c) HWY_ATTR {
    const hn::RebindToUnsigned<decltype(d)> words;
    const hn::Rebind<uint8_t, decltype(d)> bytes;
    const auto of = [&](const float* factors)
                        HWY_ATTR { return kOne ? hn::Set(d, *factors) : hn::LoadU(d, factors + c - first); };
    auto steps =
        RoundedQuotient(d, hn::Sub(hn::LoadU(d, row + c), of(by.zeros)), of(by.scales), of(by.inverses));
    if constexpr (kKept) steps = hn::IfThenElse(IsKept(d, kept + c), hn::Zero(d), steps);
    const auto code =
        hn::Min(hn::Max(hn::Add(steps, hn::Set(d, by.offset)), hn::Zero(d)), hn::Set(d, by.most));
    // Added to 2^23 a code stands in the lowest bits as it is.
    hn::StoreU(hn::TruncateTo(bytes, hn::BitCast(words, hn::Add(code, hn::Set(d, 0x1p23f)))), bytes,
               codes + c);
  });
}

HWY_INLINE void CodeColumns(const float* row, const uint8_t* kept, int64_t first, int64_t last,
                            const Coding& by, uint8_t* codes) {
  if (by.one && kept) return CodeColumns<true, true>(row, kept, first, last, by, codes);
  if (by.one) return CodeColumns<true, false>(row, kept, first, last, by, codes);
  if (kept) return CodeColumns<false, true>(row, kept, first, last, by, codes);
  CodeColumns<false, false>(row, kept, first, last, by, codes);
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

// factors: scales, zeros and room for the inverses, PackedPage::scale_count() of each, as packed_scales()
// lays them. codes: [rows.rows, rows.cols], or of one row where the codes are packed by row.
void PackNumbers(MatView<const float> rows, const PackedPage& page, const uint8_t* kept, float* factors,
                 uint8_t* codes, std::byte* packed) {
  const int64_t count = page.scale_count();
  float* HWY_RESTRICT inverses = factors + 2 * count;
  for (int64_t i = 0; i < count; ++i) inverses[i] = factors[i] > 0.0f ? 1.0f / factors[i] : 0.0f;
  const bool by_token = page.axis == ScaleAxis::kToken;
  Coding by{factors,
            inverses,
            factors + count,
            by_token,
            page.zeros ? 0.0f : static_cast<float>(1 << (page.bits - 1)),
            static_cast<float>((1 << page.bits) - 1)};
  const auto move = [&](int64_t to) {
    by.scales = factors + to;
    by.zeros = factors + count + to;
    by.inverses = inverses + to;
  };
  const PackedShape shape(page.bits, rows.cols);
  for (int64_t r = 0; r < rows.rows; ++r) {
    const uint8_t* of_row = kept ? kept + r * rows.cols : nullptr;
    // Codes of 8 bits are packed as they are.
    const bool packs = !page.by_channel && page.bits < 8;
    std::byte* of_packed = packed + r * shape.row_bytes();
    uint8_t* of_codes = page.by_channel ? codes + r * rows.cols
                        : packs         ? codes
                                        : reinterpret_cast<uint8_t*>(of_packed);
    if (by_token) {
      for (int64_t first = 0, at = r; first < rows.cols; first += page.group, at += rows.rows) {
        move(at);
        CodeColumns(rows.row(r), of_row, first, std::min(rows.cols, first + page.group), by, of_codes);
      }
    } else {
      move(page.group >= rows.rows ? 0 : r / page.group * rows.cols);
      CodeColumns(rows.row(r), of_row, 0, rows.cols, by, of_codes);
    }
    if (packs) PackRow(shape, codes, of_packed);
  }
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

void pack_numbers(MatView<const float> rows, const PackedPage& page, const uint8_t* kept, std::byte* packed) {
  KVA_CHECK(rows.rows == page.tokens && rows.cols == page.width && !page.levels, "rows of the page's shape");
  const int64_t count = page.scale_count();
  std::vector<float> factors(static_cast<std::size_t>(3 * count));
  packed_scales(page, page.scales, factors.data());
  if (page.zeros) packed_scales(page, page.zeros, factors.data() + count);
  const int64_t numbers = rows.rows * rows.cols;
  std::vector<uint8_t> codes(static_cast<std::size_t>(page.by_channel ? 2 * numbers : rows.cols));
  HWY_DYNAMIC_DISPATCH(PackNumbers)(rows, page, kept, factors.data(), codes.data(), packed);
  if (page.by_channel) HWY_DYNAMIC_DISPATCH(PackColumns)
  (codes.data(), rows.rows, rows.cols, page.bits, codes.data() + numbers, packed);
}

}  // namespace kva
#endif
