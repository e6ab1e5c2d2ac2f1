// How one lane of a warp reads units (kernels/packed_math.h) of a page side.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/device_page.h"
#include "kernels/host_device.h"
#include "kernels/packed_math.h"
#include "kernels/value_math.h"

namespace kva {

// Units that a lane reads before it uses the first one: some registers' worth.
KVA_HOST_DEVICE constexpr int units_ahead(SideKind kind) { return side_bits(kind) <= 4 ? 8 : 4; }

// A unit as it is stored.
struct RawUnit {
  uint32_t words[8];
};

// Unit `unit` of a row, whichever way its kind stores those.
struct UnitAddress {
  UnitPlaces places;
  int32_t at = 0;     // bytes from the row's start
  int32_t plane = 0;  // where bits = 3
};

template <SideKind kind>
KVA_LANE_CODE inline UnitAddress unit_address(int32_t length, int32_t unit) {
  constexpr int kBits = side_bits(kind);
  UnitAddress address;
  if constexpr (is_packed(kind)) {
    address.places = packed_unit<kBits>(length, unit, &address.at, &address.plane);
  } else {
    address.places.first = unit * kUnit;
    address.at = unit * kBits;
  }
  return address;
}

// whole: as load_unit(). Dense rows always lie at multiples of their unit.
template <SideKind kind>
KVA_LANE_CODE inline RawUnit load_raw(const uint8_t* at, int32_t plane, bool whole) {
  constexpr int kBits = side_bits(kind);
  RawUnit raw = {};
  if constexpr (is_packed(kind)) {
    const UnitBits bits = load_unit<kBits>(at, plane, whole);
    raw.words[0] = bits.low;
    raw.words[1] = bits.high;
  } else {
#if defined(__CUDA_ARCH__)
    // Vectors: a lane's 8 numbers in one load, f32 in two.
    if constexpr (kBits == 8) {
      const uint2 v = __ldg(reinterpret_cast<const uint2*>(at));
      raw.words[0] = v.x, raw.words[1] = v.y;
    } else {
      KVA_UNROLL
      for (int part = 0; part < kBits / 16; ++part) {
        const uint4 v = __ldg(reinterpret_cast<const uint4*>(at) + part);
        raw.words[4 * part] = v.x, raw.words[4 * part + 1] = v.y;
        raw.words[4 * part + 2] = v.z, raw.words[4 * part + 3] = v.w;
      }
    }
#else
    for (int i = 0; i < kBits / 4; ++i) raw.words[i] = reinterpret_cast<const uint32_t*>(at)[i];
#endif
  }
  return raw;
}

// Number j of a dense unit.
template <SideKind kind>
KVA_LANE_CODE inline float unit_number(const RawUnit& raw, int j) {
  if constexpr (kind == SideKind::kF32) {
    return float_of(raw.words[j]);
  } else if constexpr (side_bits(kind) == 16) {
    const auto code = static_cast<uint16_t>(raw.words[j / 2] >> (16 * (j % 2)));
    return kind == SideKind::kF16 ? f16_value(code) : bf16_value(code);
  } else {
    const auto code = static_cast<uint8_t>(raw.words[j / 4] >> (8 * (j % 4)));
    return fp8_value(code, kind == SideKind::kE4M3 ? Fp8::kE4M3 : Fp8::kE5M2);
  }
}

// Whether the numbers of a unit always share a scale, which then goes into sums instead of numbers: all
// numbers of a row do, or groups are made of whole blocks (kernels/packed.h).
KVA_HOST_DEVICE inline bool units_share_scales(const SideFormat& format) {
  if (!is_packed(format.kind) || format.scale_by_token == is_by_channel(format.kind)) return false;
  const int bits = side_bits(format.kind);
  const int block = 16 * (bits == 3 ? 8 : 8 / bits);
  return format.groups == 1 || format.group % block == 0;
}

// The number that a code stands for, where units do not share scales.
KVA_RARE_CODE inline float coded_number(const SideFormat& format, const uint8_t* payload, float code,
                                        int32_t token, int32_t channel) {
  const CodeScale of =
      code_scale(format, side_bits(format.kind), payload, scale_index(format, token, channel));
  return fmaf(code, of.scale, of.zero);
}

// The same of a level.
KVA_RARE_CODE inline float levelled_number(const SideFormat& format, const uint8_t* payload, float level,
                                           int32_t token, int32_t channel) {
  const CodeScale of = level_scale(format, payload, scale_index(format, token, channel));
  return fmaf(level, of.scale, of.zero);
}

// One page side, at its payload.
struct SidePage {
  const SideFormat* format;
  const uint8_t* payload;
  int32_t tokens;
  // What its codes stand for, in memory that the warp's lanes share: levels, or products with centroids.
  const float* levels = nullptr;

  // `token`, or the last one where the page ends before it.
  KVA_LANE_CODE int32_t clipped(int32_t token) const { return token < tokens ? token : tokens - 1; }
};

// What numbers with this index share.
template <SideKind kind>
KVA_LANE_CODE inline CodeScale shared_scale(const SidePage& page, int32_t index) {
  if constexpr (has_levels(kind)) return level_scale(*page.format, page.payload, index);
  return code_scale(*page.format, side_bits(kind), page.payload, index);
}
// A code as a number to be scaled: itself, or its level.
template <SideKind kind>
KVA_LANE_CODE inline float code_number(const SidePage& page, uint32_t code) {
  if constexpr (has_levels(kind)) return page.levels[code];
  return static_cast<float>(code);
}
// Such a number scaled by itself, where units do not share scales.
template <SideKind kind>
KVA_LANE_CODE inline float scaled_number(const SidePage& page, float number, int32_t token, int32_t channel) {
  if constexpr (has_levels(kind)) return levelled_number(*page.format, page.payload, number, token, channel);
  return coded_number(*page.format, page.payload, number, token, channel);
}
// What the code of a number kept beside the codes decodes to: the lowest one.
template <bool kLevels>
KVA_LANE_CODE inline float left_code_value(const SidePage& page, int32_t token, int32_t channel) {
  if constexpr (kLevels) return levelled_number(*page.format, page.payload, page.levels[0], token, channel);
  return kept_code_value(*page.format, page.payload, token, channel);
}

// The same where the kind is known at run time only.
KVA_LANE_CODE inline float left_code_value(const SidePage& page, int32_t token, int32_t channel) {
  return has_levels(page.format->kind) ? left_code_value<true>(page, token, channel)
                                       : left_code_value<false>(page, token, channel);
}

// Asks for a page side's bytes, by all lanes of a warp, some time before they are read.
KVA_LANE_CODE inline void prefetch_side(const SidePage& page, int lane) {
#if defined(__CUDA_ARCH__)
  const int64_t bytes = side_bytes(*page.format, page.tokens);
  constexpr int64_t kLine = 128;
  for (int64_t at = lane * kLine; at < bytes; at += 32 * kLine)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(page.payload + at));
#else
  (void)page;
  (void)lane;
#endif
}

// Units of the rows of tokens of one page side, for one lane.
template <SideKind kind>
struct TokenUnits {
  KVA_LANE_CODE TokenUnits(const SidePage& page_, int32_t unit)
      : page(page_), address(unit_address<kind>(page_.format->width, unit)) {
    constexpr int kBits = side_bits(kind);
    row_bytes = is_packed(kind) ? packed_bytes(kBits, page.format->width) : page.format->width * kBits / 8;
    rows = page.payload + (is_packed(kind) ? page.format->codes_at : 0) + address.at;
    whole = reinterpret_cast<uintptr_t>(rows) % kBits == 0 && row_bytes % kBits == 0;
  }

  KVA_LANE_CODE RawUnit load(int32_t token) const {
    return load_raw<kind>(rows + token * row_bytes, address.plane, whole);
  }
  // The numbers; or their codes where kSharedScales, which is for packed kinds.
  template <bool kSharedScales>
  KVA_LANE_CODE void numbers(const RawUnit& raw, int32_t token, float (&values)[kUnit]) const {
    KVA_UNROLL
    for (int j = 0; j < kUnit; ++j) {
      if constexpr (is_packed(kind))
        values[j] = code_number<kind>(page, unit_code<side_bits(kind)>({raw.words[0], raw.words[1]}, j));
      else
        values[j] = unit_number<kind>(raw, j);
      if constexpr (is_packed(kind) && !kSharedScales)
        values[j] = scaled_number<kind>(page, values[j], token, address.places.place(j));
    }
  }
  // What the unit's numbers of a token share.
  KVA_LANE_CODE CodeScale scale(int32_t token) const {
    return shared_scale<kind>(page, scale_index(*page.format, token, address.places.first));
  }

  SidePage page;
  UnitAddress address;
  int32_t row_bytes;
  const uint8_t* rows;
  bool whole;
};

}  // namespace kva
