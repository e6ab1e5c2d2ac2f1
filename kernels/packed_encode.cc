#include "kernels/packed_encode.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/check.h"
#include "kernels/transpose.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/packed_encode.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

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

bool AllWithin(MatView<const float> rows, float most) {
  bool all = true;
  for (int64_t t = 0; t < rows.rows; ++t) {
    const float* row = rows.row(t);
    for_columns(0, rows.cols, [&](auto d, int64_t c) HWY_ATTR {
      all &= hn::AllTrue(d, hn::Le(hn::Abs(hn::LoadU(d, row + c)), hn::Set(d, most)));
    });
  }
  return all;
}

// low[c - first] and high[c - first] take in the columns [first, last) of a row.
void WidenRanges(const float* row, const uint8_t* kept, int64_t first, int64_t last, float* low,
                 float* high) {
  for_columns(first, last, [&](auto d, int64_t c) HWY_ATTR {
    const auto values = hn::LoadU(d, row + c);
    auto at_least = values;
    auto at_most = values;
    if (kept) {
      const auto is_kept = IsKept(d, kept + c);
      at_least = hn::IfThenElse(is_kept, hn::Set(d, std::numeric_limits<float>::infinity()), values);
      at_most = hn::IfThenElse(is_kept, hn::Set(d, -std::numeric_limits<float>::infinity()), values);
    }
    hn::StoreU(hn::Min(hn::LoadU(d, low + c - first), at_least), d, low + c - first);
    hn::StoreU(hn::Max(hn::LoadU(d, high + c - first), at_most), d, high + c - first);
  });
}

// The range of the columns [first, last) of a row.
void RangeOf(const float* row, const uint8_t* kept, int64_t first, int64_t last, float* low, float* high) {
  const hn::CappedTag<float, 16> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  HWY_ALIGN float lows[16], highs[16];
  std::fill_n(lows, lanes, std::numeric_limits<float>::infinity());
  std::fill_n(highs, lanes, -std::numeric_limits<float>::infinity());
  const int64_t whole = first + (last - first) / lanes * lanes;
  if (!kept) {
    auto lowest = hn::Load(d, lows);
    auto highest = hn::Load(d, highs);
    for (int64_t c = first; c < whole; c += lanes) {
      const auto values = hn::LoadU(d, row + c);
      lowest = hn::Min(lowest, values);
      highest = hn::Max(highest, values);
    }
    hn::Store(lowest, d, lows);
    hn::Store(highest, d, highs);
  } else {
    for (int64_t c = first; c < whole; c += lanes) WidenRanges(row, kept, c, c + lanes, lows, highs);
  }
  for (int64_t c = whole; c < last; ++c) WidenRanges(row, kept, c, c + 1, lows, highs);
  *low = hn::GetLane(hn::MinOfLanes(d, hn::Load(d, lows)));
  *high = hn::GetLane(hn::MaxOfLanes(d, hn::Load(d, highs)));
}

void GroupRanges(MatView<const float> rows, const PackedPage& shape, const uint8_t* kept, float* low,
                 float* high) {
  for (int64_t t = 0; t < rows.rows; ++t) {
    const uint8_t* of_row = kept ? kept + t * rows.cols : nullptr;
    if (shape.axis == ScaleAxis::kChannel) {
      const int64_t at = shape.group >= rows.rows ? 0 : t / shape.group * rows.cols;
      WidenRanges(rows.row(t), of_row, 0, rows.cols, low + at, high + at);
      continue;
    }
    for (int64_t first = 0; first < rows.cols; first += shape.group)
      RangeOf(rows.row(t), of_row, first, std::min(rows.cols, first + shape.group), low++, high++);
  }
}

// Codes of some numbers, by scales and zeros that are the same for all or one for each.
struct Coding {
  const float* scales;
  const float* zeros;
  bool one;
  float offset;  // the code of 0
  float most;
};

// codes[c] for the columns [first, last); scales and zeros from 0 on.
HWY_INLINE void CodeColumns(const float* HWY_RESTRICT row, const uint8_t* HWY_RESTRICT kept, int64_t first,
                            int64_t last, const Coding& by, uint8_t* HWY_RESTRICT codes) {
  for_columns(first, last, [&](auto d, int64_t c) HWY_ATTR {
    const hn::RebindToSigned<decltype(d)> words;
    const hn::Rebind<uint8_t, decltype(d)> bytes;
    const auto scale = by.one ? hn::Set(d, by.scales[0]) : hn::LoadU(d, by.scales + c - first);
    const auto zero = by.one ? hn::Set(d, by.zeros[0]) : hn::LoadU(d, by.zeros + c - first);
    auto steps = hn::Round(hn::Div(hn::Sub(hn::LoadU(d, row + c), zero), scale));
    steps = hn::IfThenElse(hn::Gt(scale, hn::Zero(d)), steps, hn::Zero(d));
    if (kept) steps = hn::IfThenElse(IsKept(d, kept + c), hn::Zero(d), steps);
    const auto code =
        hn::Min(hn::Max(hn::Add(steps, hn::Set(d, by.offset)), hn::Zero(d)), hn::Set(d, by.most));
    hn::StoreU(hn::DemoteTo(bytes, hn::ConvertTo(words, code)), bytes, codes + c);
  });
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

// rows: as they are packed. scales and zeros: [group of columns, row], or [group of rows, column].
void PackNumbers(MatView<const float> rows, const PackedPage& page, const uint8_t* kept, const float* scales,
                 const float* zeros, uint8_t* codes, std::byte* packed) {
  const PackedShape shape(page.bits, rows.cols);
  const int64_t row_bytes = shape.row_bytes();
  const bool by_row = page.by_channel == (page.axis == ScaleAxis::kChannel);
  Coding by{scales, zeros, by_row, page.zeros ? 0.0f : static_cast<float>(1 << (page.bits - 1)),
            static_cast<float>((1 << page.bits) - 1)};
  for (int64_t r = 0; r < rows.rows; ++r, packed += row_bytes) {
    const uint8_t* of_row = kept ? kept + r * rows.cols : nullptr;
    if (by_row) {
      by.scales = scales + r;
      by.zeros = zeros + r;
      for (int64_t first = 0; first < rows.cols; first += page.group) {
        CodeColumns(rows.row(r), of_row, first, std::min(rows.cols, first + page.group), by, codes);
        by.scales += rows.rows;
        by.zeros += rows.rows;
      }
    } else {
      const int64_t at = page.group >= rows.rows ? 0 : r / page.group * rows.cols;
      by.scales = scales + at;
      by.zeros = zeros + at;
      CodeColumns(rows.row(r), of_row, 0, rows.cols, by, codes);
    }
    PackRow(shape, codes, packed);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kva
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kva {
namespace {

HWY_EXPORT(AllWithin);
HWY_EXPORT(GroupRanges);
HWY_EXPORT(PackNumbers);
HWY_EXPORT(PackRow);

}  // namespace

void pack_row(const uint8_t* codes, int bits, int64_t width, std::byte* packed) {
  KVA_CHECK(bits == 8 || (bits >= 2 && bits <= 4), "codes of 8, 4, 3 or 2 bits");
  HWY_DYNAMIC_DISPATCH(PackRow)(PackedShape(bits, width), codes, packed);
}

bool all_within(MatView<const float> rows, float most) { return HWY_DYNAMIC_DISPATCH(AllWithin)(rows, most); }

void group_ranges(MatView<const float> rows, const PackedPage& shape, const uint8_t* kept, float* low,
                  float* high) {
  std::fill_n(low, shape.scale_count(), std::numeric_limits<float>::infinity());
  std::fill_n(high, shape.scale_count(), -std::numeric_limits<float>::infinity());
  HWY_DYNAMIC_DISPATCH(GroupRanges)(rows, shape, kept, low, high);
}

void pack_numbers(MatView<const float> rows, const PackedPage& page, const uint8_t* kept, std::byte* packed) {
  KVA_CHECK(rows.rows == page.tokens && rows.cols == page.width && !page.levels, "rows of the page's shape");
  const int64_t count = page.scale_count();
  std::vector<float> factors(static_cast<std::size_t>(2 * count), 0.0f);
  packed_scales(page, page.scales, factors.data());
  if (page.zeros) packed_scales(page, page.zeros, factors.data() + count);
  std::vector<uint8_t> codes(static_cast<std::size_t>(std::max(rows.rows, rows.cols)));
  const auto pack = [&](MatView<const float> as_packed, const uint8_t* without) {
    HWY_DYNAMIC_DISPATCH(PackNumbers)
    (as_packed, page, without, factors.data(), factors.data() + count, codes.data(), packed);
  };
  if (!page.by_channel) return pack(rows, kept);
  std::vector<float> turned(static_cast<std::size_t>(rows.rows * rows.cols));
  const MatView<float> channels(turned.data(), rows.cols, rows.rows);
  transpose(rows, channels);
  if (!kept) return pack(channels, nullptr);
  std::vector<uint8_t> of_channels(turned.size());
  for (int64_t c = 0; c < rows.cols; ++c)
    for (int64_t t = 0; t < rows.rows; ++t)
      of_channels[static_cast<std::size_t>(c * rows.rows + t)] = kept[t * rows.cols + c];
  pack(channels, of_channels.data());
}

}  // namespace kva
#endif
