// What the parts of kernels/attention_narrow.h share: where a lane stands in products of tensor cores, and
// how it reads rows.
//
// A Warp has, beside what kernels/attention_keys.h asks for, shuffle(value, lane), the value of that lane;
// any(x), whether x holds for any lane; transpose(pairs), of an 8 x 8 matrix of which lane l has numbers 2 (l
// % 4) and the next of row l / 4 (movmatrix); and multiply<kBf16>(sums, a, b), which is PTX's
// mma.sync.m16n8k16, with registers as PTX lays them out.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/attention_warp.h"
#include "kernels/tensor_units.h"

namespace kva {

struct NarrowLane {
  template <class Warp>
  KVA_LANE_CODE explicit NarrowLane(Warp& warp) : eighth(warp.lane() / 4), quarter(warp.lane() % 4) {}
  // Row of the first operand, as is that plus 8; column of the second.
  int eighth;
  // Of columns of the first operand and rows of the second: 2 quarter, the next, and those plus 8. Columns of
  // results: 2 quarter and the next.
  int quarter;
};

template <class Warp>
KVA_LANE_CODE inline float sum_of_quarters(Warp& warp, float x) {
  x += warp.shuffle_xor(x, 1);
  return x + warp.shuffle_xor(x, 2);
}
template <class Warp>
KVA_LANE_CODE inline float most_of_quarters(Warp& warp, float x) {
  x = fmaxf(x, warp.shuffle_xor(x, 1));
  return fmaxf(x, warp.shuffle_xor(x, 2));
}
template <class Warp>
KVA_LANE_CODE inline float sum_of_eighths(Warp& warp, float x) {
  for (int mask = 4; mask < 32; mask *= 2) x += warp.shuffle_xor(x, mask);
  return x;
}
template <class Warp>
KVA_LANE_CODE inline float most_of_eighths(Warp& warp, float x) {
  for (int mask = 4; mask < 32; mask *= 2) x = fmaxf(x, warp.shuffle_xor(x, mask));
  return x;
}

// Something of the two columns of results that a lane has.
struct OfColumns {
  float first;
  float second;
};
// Of what lanes have of query row `eighth`.
template <class Warp>
KVA_LANE_CODE inline OfColumns of_columns(Warp& warp, const NarrowLane& at, float of_row) {
  return {warp.shuffle(of_row, 8 * at.quarter), warp.shuffle(of_row, 8 * at.quarter + 4)};
}

// The other way: of query row `eighth`.
template <class Warp>
KVA_LANE_CODE inline float of_row(Warp& warp, const NarrowLane& at, const OfColumns& of) {
  const float first = warp.shuffle(of.first, at.eighth / 2), second = warp.shuffle(of.second, at.eighth / 2);
  return at.eighth % 2 ? second : first;
}

// What the numbers of a row share; those of dense rows are themselves.
template <SideKind kind>
KVA_LANE_CODE CodeScale row_scale(const SidePage& page, int32_t row) {
  if constexpr (is_packed(kind)) return code_scale(*page.format, side_bits(kind), page.payload, row);
  return {1.0f, 0.0f};
}

// Units of rows of kWidth numbers: how many, how far unit `unit` is from the row's start (of unit a + b for
// multiples a of 8 and b below 8 that is the sum), and how far a unit's bytes are apart where a number has 3
// bits.
template <SideKind kind, int kWidth>
struct NarrowRow {
  static constexpr int kBits = side_bits(kind);
  static constexpr int kUnits = kWidth / kUnit;
  static constexpr int kPlane = kUnits < 16 ? kUnits : 16;
  static constexpr int kBytes = kWidth * kBits / 8;
  static_assert(kUnits <= 16 || kUnits % 16 == 0, "whole blocks");
  KVA_HOST_DEVICE static constexpr int32_t unit_at(int unit) {
    return kBits == 3 ? unit / 16 * 48 + unit % 16 : unit * kBits;
  }

  // Unit `unit` of a row.
  KVA_LANE_CODE static RawUnit load(const uint8_t* row, int32_t at) {
    return load_raw<kind>(row + at, kPlane, true);
  }
  KVA_LANE_CODE static const uint8_t* first(const SidePage& page) {
    return page.payload + (is_packed(kind) ? page.format->codes_at : 0);
  }
};

}  // namespace kva
