// The layout of packed rows (kernels/packed.h) number by number and unit by unit, for CPU and CUDA alike.
//
// A unit is what one lane of a warp takes of a row at once: 8 numbers in as many bytes as a number has bits.
// Of dense rows they are neighbours; of packed rows they are the slices of neighbouring lanes, so that a
// unit's bytes are neighbours too (one byte in each of the three planes where bits = 3).
#pragma once

#include <cstdint>

#include "kernels/device_page.h"
#include "kernels/host_device.h"
#include "kernels/value_math.h"

namespace kva {

inline constexpr int kUnit = 8;

// Which numbers of a row a unit has: number j stands at place(j).
struct UnitPlaces {
  int32_t first = 0;
  int32_t run_log2 = 3;  // so many neighbours, then the next slice
  int32_t stride = 0;
  KVA_HOST_DEVICE int32_t place(int j) const {
    return first + (j & ((1 << run_log2) - 1)) + stride * (j >> run_log2);
  }
};

// Unit `unit` of a packed row of `length` numbers, a multiple of 8. *at: its first byte in the row. *plane:
// the distance of its bytes where bits = 3.
template <int bits>
KVA_HOST_DEVICE inline UnitPlaces packed_unit(int32_t length, int32_t unit, int32_t* at, int32_t* plane) {
  constexpr int kSlicesLog2 = bits == 8 ? 0 : bits == 4 ? 1 : bits == 2 ? 2 : 3;
  constexpr int kLaneBytes = bits == 3 ? 3 : 1;
  constexpr int kRunLog2 = 3 - kSlicesLog2;    // lanes of a unit
  constexpr int kBlockLog2 = 4 + kSlicesLog2;  // numbers of a block
  constexpr int kUnitsLog2 = kBlockLog2 - 3;   // units of a block
  const int32_t full_blocks = length >> kBlockLog2;
  const int32_t wanted = unit >> kUnitsLog2;
  const int32_t block = wanted < full_blocks ? wanted : full_blocks;
  const int32_t lanes = block < full_blocks ? 16 : (length - (full_blocks << kBlockLog2)) >> kSlicesLog2;
  const int32_t lane = (unit - (block << kUnitsLog2)) << kRunLog2;
  *at = block * 16 * kLaneBytes + lane;
  *plane = lanes;
  return {(block << kBlockLog2) + lane, kRunLog2, lanes};
}

// A unit's bytes.
struct UnitBits {
  uint32_t low;
  uint32_t high;
};

// whole: the unit's address is a multiple of its size. Else it is at least even, but where bits = 3.
template <int bits>
KVA_HOST_DEVICE inline UnitBits load_unit(const uint8_t* at, int32_t plane, bool whole) {
  if constexpr (bits == 3) {
    return {
        at[0] | static_cast<uint32_t>(at[plane]) << 8 | static_cast<uint32_t>(at[int64_t{2} * plane]) << 16,
        0};
  } else if constexpr (bits == 2) {
    return {*reinterpret_cast<const uint16_t*>(at), 0};
  } else {
    const auto* words = reinterpret_cast<const uint32_t*>(at);
    const auto* halves = reinterpret_cast<const uint16_t*>(at);
    UnitBits unit{whole ? words[0] : halves[0] | static_cast<uint32_t>(halves[1]) << 16, 0};
    if constexpr (bits == 8)
      unit.high = whole ? words[1] : halves[2] | static_cast<uint32_t>(halves[3]) << 16;
    return unit;
  }
}

// The code of a unit's number j.
template <int bits>
KVA_HOST_DEVICE inline uint32_t unit_code(const UnitBits& unit, int j) {
  if constexpr (bits == 8) return ((j < 4 ? unit.low : unit.high) >> (8 * (j & 3))) & 255u;
  if constexpr (bits == 4) return (unit.low >> (8 * (j & 3) + 4 * (j >> 2))) & 15u;
  if constexpr (bits == 2) return (unit.low >> (8 * (j & 1) + 2 * (j >> 1))) & 3u;
  return (unit.low >> (3 * j)) & 7u;
}

// The code of one number of a packed row of any length.
KVA_HOST_DEVICE inline uint32_t packed_code(const uint8_t* row, int bits, int32_t length, int32_t index) {
  const int log2 = bits == 8 ? 0 : bits == 4 ? 1 : bits == 2 ? 2 : 3;
  const int lane_bytes = bits == 3 ? 3 : 1;
  const int32_t block = index >> (4 + log2);
  const int32_t left = length - (block << (4 + log2));
  const int32_t lanes = left >= 16 << log2 ? 16 : (left + (1 << log2) - 1) >> log2;
  const int32_t within = index - (block << (4 + log2));
  const uint8_t* lane = row + int64_t{block} * 16 * lane_bytes + within % lanes;
  uint32_t word = lane[0];
  if (bits == 3)
    word |= static_cast<uint32_t>(lane[lanes]) << 8 | static_cast<uint32_t>(lane[int64_t{2} * lanes]) << 16;
  return (word >> (bits * (within / lanes))) & ((1u << bits) - 1);
}

// Bytes of a packed row, as packed_row_bytes().
KVA_HOST_DEVICE inline int32_t packed_bytes(int bits, int32_t length) {
  const int log2 = bits == 8 ? 0 : bits == 4 ? 1 : bits == 2 ? 2 : 3;
  const int32_t full = length >> (4 + log2);
  const int32_t tail = (length - (full << (4 + log2)) + (1 << log2) - 1) >> log2;
  return (full * 16 + tail) * (bits == 3 ? 3 : 1);
}

// PackedPage::scale_of().
KVA_HOST_DEVICE inline int32_t scale_index(const SideFormat& format, int32_t token, int32_t channel) {
  if (format.scale_by_token)
    return format.groups == 1 ? token : token * format.groups + channel / format.group;
  return format.groups == 1 ? channel : token / format.group * format.width + channel;
}

KVA_HOST_DEVICE inline float f16_at(const uint8_t* payload, int32_t at, int32_t index) {
  return f16_value(reinterpret_cast<const uint16_t*>(payload + at)[index]);
}

// What a code stands for: code * scale + zero.
struct CodeScale {
  float scale;
  float zero;
};

KVA_HOST_DEVICE inline CodeScale code_scale(const SideFormat& format, int bits, const uint8_t* payload,
                                            int32_t index) {
  const float scale = f16_at(payload, format.scales_at, index);
  if (format.zeros_at >= 0) return {scale, f16_at(payload, format.zeros_at, index)};
  return {scale, -static_cast<float>(1 << (bits - 1)) * scale};
}

// The same of a level's.
KVA_HOST_DEVICE inline CodeScale level_scale(const SideFormat& format, const uint8_t* payload,
                                             int32_t index) {
  return {f16_at(payload, format.scales_at, index),
          format.zeros_at >= 0 ? f16_at(payload, format.zeros_at, index) : 0.0f};
}

// What the code of a number kept beside the codes decodes to.
KVA_HOST_DEVICE inline float kept_code_value(const SideFormat& format, const uint8_t* payload, int32_t token,
                                             int32_t channel) {
  return format.zeros_at < 0 ? 0.0f : f16_at(payload, format.zeros_at, scale_index(format, token, channel));
}

// Number i of a list of `bits` bits each, bits <= 24: it lies in four bytes.
KVA_HOST_DEVICE inline uint32_t listed_place(const uint8_t* list, int bits, int64_t i) {
  const int64_t first = i * bits;
  const uint8_t* at = list + first / 8;
  const uint32_t window = at[0] | static_cast<uint32_t>(at[1]) << 8 | static_cast<uint32_t>(at[2]) << 16 |
                          static_cast<uint32_t>(at[3]) << 24;
  return (window >> (first % 8)) & ((1u << bits) - 1);
}

// The first of a format's outliers whose place is not below `place`.
KVA_HOST_DEVICE inline int32_t first_outlier(const SideFormat& format, const uint8_t* payload,
                                             uint32_t place) {
  int32_t low = 0;
  int32_t high = format.outliers;
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (listed_place(payload + format.places_at, format.place_bits, middle) < place)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

}  // namespace kva
