// Scores of keys for the few query rows of kernels/attention_narrow.h: products of 16 tokens ("a slot") with
// 8 queries.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/narrow_lane.h"

namespace kva {

inline constexpr int kSlotTokens = 16;
// Scores of a token. One more than there are rows, so that those of tokens some apart are in other banks.
using NarrowScores = float[kNarrowRows + 1];

// Scores of a token for both of the lane's columns.
struct TokenScores {
  int32_t row = 0;     // counted from the first row of the slots that are scored at once
  int32_t token = -1;  // -1: there is none
  OfColumns scores = {0.0f, 0.0f};
};

// Numbers of query row `eighth`, scaled; zeros of rows that the item does not have.
class NarrowQuery {
 public:
  KVA_LANE_CODE NarrowQuery(const AttentionJob& job, const AttentionItem& item, const NarrowLane& at)
      : numbers_(item_query(job, item, at.eighth < item.rows ? at.eighth : 0)),
        scale_(at.eighth < item.rows ? job.scale : 0.0f),
        has_row_(at.eighth < item.rows) {}
  KVA_LANE_CODE float at(int32_t channel) const { return has_row_ ? numbers_[channel] * scale_ : 0.0f; }
  // The size of the largest.
  template <class Warp>
  KVA_LANE_CODE float largest(Warp& warp, const NarrowLane& at_lane, int32_t width) const {
    float most = 0.0f;
    for (int32_t c = at_lane.quarter; c < width; c += 4) most = fmaxf(most, fabsf(at(c)));
    return most_of_quarters(warp, most);
  }
  template <class Warp>
  KVA_LANE_CODE float sum(Warp& warp, const NarrowLane& at_lane, int32_t width) const {
    float sum = 0.0f;
    for (int32_t c = at_lane.quarter; c < width; c += 4) sum += at(c);
    return sum_of_quarters(warp, sum);
  }

 private:
  const float* numbers_;
  float scale_;
  bool has_row_;
};

// Of rows of tokens: a slot has 16 neighbours. The queries' terms stay in registers.
template <SideKind kind, int kWidth, bool kChannels = is_by_channel(kind)>
class NarrowKeys {
 public:
  template <class Warp>
  KVA_LANE_CODE NarrowKeys(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                           const NarrowLane& at) {
    const NarrowQuery query(job, item, at);
    const float power = kKeepsRange ? 1.0f : power_to(query.largest(warp, at, kWidth), 10);
    sums_ = of_columns(warp, at, query.sum(warp, at, kWidth));
    inverse_ = of_columns(warp, at, inverse_power(power) * kTensorUnitScale<kind>);
    KVA_UNROLL
    for (int i = 0; i < kSteps; ++i) {
      const bool has_unit = has(i, at);
      const UnitPlaces places = unit_address<kind>(kWidth, has_unit ? 4 * i + at.quarter : 0).places;
      KVA_UNROLL
      for (int p = 0; p < 4; ++p) {
        const auto number = [&](int n) {
          return has_unit ? query.at(places.place(Unit::number(p, n))) * power : 0.0f;
        };
        Terms::split(number(0), number(1), queries_[i][p]);
      }
    }
  }

  // Slots that a page fills, and how many of them score() does at once.
  KVA_LANE_CODE static int32_t slots(const SidePage& page) {
    return (page.tokens + kSlotTokens - 1) / kSlotTokens;
  }
  KVA_LANE_CODE static int32_t at_once(const SidePage&) { return 1; }

  // Calls put(TokenScores) for all rows of slots [slot, slot + at_once()): tokens in order, then those that
  // there are not.
  template <class Warp, class Body>
  KVA_LANE_CODE void score(Warp& warp, const AttentionJob&, const AttentionItem&, const NarrowLane& at,
                           const SidePage& page, int32_t slot, const Body& put) const {
    const int32_t lower = slot * kSlotTokens + at.eighth;
    const int32_t token[2] = {page.clipped(lower), page.clipped(lower + 8)};
    float sums[4];
    multiply(warp, at, page, token, sums);
    const auto scored = [&](int i, float first, float second) {
      const CodeScale of = row_scale<kind>(page, token[i]);
      return OfColumns{fmaf(first * inverse_.first, of.scale, of.zero * sums_.first),
                       fmaf(second * inverse_.second, of.scale, of.zero * sums_.second)};
    };
    put(TokenScores{at.eighth, lower < page.tokens ? lower : -1, scored(0, sums[0], sums[1])});
    put(TokenScores{at.eighth + 8, lower + 8 < page.tokens ? lower + 8 : -1, scored(1, sums[2], sums[3])});
  }

 private:
  using Numbers = TensorNumbers<kind>;
  static constexpr bool kKeepsRange = kind == SideKind::kBF16;  // f32's
  using Row = NarrowRow<kind, kWidth>;
  using Unit = TensorUnitOf<kind>;
  using Terms = TensorTerms<Numbers>;
  static constexpr int kSteps = (Row::kUnits + 3) / 4;  // units of a lane
  // As many are read before the first one is used: so many registers.
  static constexpr int kTogether = side_bits(kind) == 16 ? 2 : 4;

  KVA_LANE_CODE static bool has(int i, const NarrowLane& at) {
    return 4 * i + 3 < Row::kUnits || 4 * i + at.quarter < Row::kUnits;
  }

  // Products of two tokens a lane with the queries. Terms are added at the end: they are chains of their own.
  template <class Warp>
  KVA_LANE_CODE void multiply(Warp& warp, const NarrowLane& at, const SidePage& page,
                              const int32_t (&token)[2], float (&sums)[4]) const {
    const uint8_t* row[2];
    KVA_UNROLL
    for (int n = 0; n < 2; ++n) row[n] = Row::first(page) + token[n] * Row::kBytes + Row::unit_at(at.quarter);
    float parts[Terms::kCount][4] = {};
    KVA_UNROLL
    for (int first = 0; first < kSteps; first += kTogether) {
      RawUnit raw[kTogether][2];
      KVA_UNROLL
      for (int i = 0; i < kTogether && first + i < kSteps; ++i) {
        KVA_UNROLL
        for (int n = 0; n < 2; ++n)
          raw[i][n] = Row::load(row[n], has(first + i, at) ? Row::unit_at(4 * (first + i)) : 0);
      }
      KVA_UNROLL
      for (int i = 0; i < kTogether && first + i < kSteps; ++i) {
        KVA_UNROLL
        for (int p = 0; p < 4; p += 2) {
          const uint32_t a[4] = {Unit::along(raw[i][0], p), Unit::along(raw[i][1], p),
                                 Unit::along(raw[i][0], p + 1), Unit::along(raw[i][1], p + 1)};
          KVA_UNROLL
          for (int n = 0; n < Terms::kCount; ++n) {
            warp.template multiply<Numbers>(a, queries_[first + i][p][n], queries_[first + i][p + 1][n],
                                            parts[n]);
          }
        }
      }
    }
    KVA_UNROLL
    for (int i = 0; i < 4; ++i) {
      sums[i] = parts[Terms::kCount - 1][i];
      KVA_UNROLL
      for (int n = Terms::kCount - 2; n >= 0; --n) sums[i] += parts[n][i];
    }
  }

  uint32_t queries_[kSteps][4][Terms::kCount];  // of the numbers that the lane's units have
  OfColumns sums_;                              // of the queries' numbers
  OfColumns inverse_;                           // of what they were scaled by
};

// Of rows of channels: a lane's tokens are of one unit, 8 in all. 8 units, and so 64 tokens, are scored at
// once; where a page has no more than half as many, neighbouring lanes share them. Scales of channels go into
// the queries, which are split anew for each page, those of tokens into the scores.
template <SideKind kind, int kWidth>
class NarrowKeys<kind, kWidth, true> {
 public:
  template <class Warp>
  KVA_LANE_CODE NarrowKeys(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                           const NarrowLane& at)
      : largest_(NarrowQuery(job, item, at).largest(warp, at, kWidth)),
        sums_(of_columns(warp, at, NarrowQuery(job, item, at).sum(warp, at, kWidth))) {}

  KVA_LANE_CODE static int32_t slots(const SidePage& page) {
    const int32_t units = page.tokens / kUnit;
    return units <= 8 ? at_once(page) : (units + 7) / 8 * 4;
  }
  KVA_LANE_CODE static int32_t at_once(const SidePage& page) {
    const int32_t units = page.tokens / kUnit;
    return units <= 2 ? 1 : units <= 4 ? 2 : 4;
  }

  template <class Warp, class Body>
  KVA_LANE_CODE void score(Warp& warp, const AttentionJob& job, const AttentionItem& item,
                           const NarrowLane& at, const SidePage& page, int32_t slot, const Body& put) const {
    const int32_t count = at_once(page);
    const int32_t sharing = 4 / count;  // lanes of a unit
    const int32_t unit = slot / 4 * 8 + at.eighth / sharing;
    const int32_t first = at.eighth % sharing * count;
    const bool has_unit = unit * kUnit < page.tokens;
    // Units of 8 lanes are neighbours, but where a lane has a unit of its own and there are more of them.
    const bool in_order = kBits != 3 || page.tokens <= kNarrowTokens;
    const UnitAddress address = unit_address<kToken>(page.tokens, has_unit ? unit : 0);
    const bool of_tokens = page.format->scale_by_token;
    const float power = power_to(of_tokens ? largest_ : largest_ * largest_scale(warp, at, page), 13);
    float sums[4][4] = {};
    const float zeros =
        multiply(warp, NarrowQuery(job, item, at), at, page, address, power, first, count, sums);
    const OfColumns beside = of_columns(warp, at, sum_of_quarters(warp, zeros));
    const OfColumns inverse = of_columns(warp, at, inverse_power(power));
    KVA_UNROLL
    for (int m = 0; m < 4; ++m) {
      if (m >= count) break;
      KVA_UNROLL
      for (int upper = 0; upper < 2; ++upper) {
        const int number = Unit::crossed(first + m, upper);
        const int32_t token = has_unit ? address.places.place(number) : -1;
        const int32_t row =
            has_unit && in_order ? token - slot * kSlotTokens : at.eighth / sharing * kUnit + number;
        CodeScale of = {1.0f, 0.0f};
        if (of_tokens && has_unit) of = code_scale(*page.format, kBits, page.payload, token);
        const auto scored = [&](float sum, float inverse_of, float sum_of, float beside_of) {
          return fmaf(sum * inverse_of, of.scale, fmaf(of.zero, sum_of, beside_of));
        };
        put(TokenScores{row,
                        token,
                        {scored(sums[m][2 * upper], inverse.first, sums_.first, beside.first),
                         scored(sums[m][2 * upper + 1], inverse.second, sums_.second, beside.second)}});
      }
    }
  }

 private:
  static constexpr int kBits = side_bits(kind);
  // The same codes in rows of tokens: how a row's units lie does not depend on what it is of.
  static constexpr auto kToken = static_cast<SideKind>(static_cast<int>(kind) - 4);
  using Unit = TensorUnitOf<kind>;
  using Terms = TensorTerms<F16Numbers>;

  template <class Warp>
  KVA_LANE_CODE static float largest_scale(Warp& warp, const NarrowLane& at, const SidePage& page) {
    float largest = 0.0f;
    for (int32_t c = at.quarter; c < kWidth; c += 4)
      largest = fmaxf(largest, fabsf(f16_at(page.payload, page.format->scales_at, c)));
    return most_of_quarters(warp, largest);
  }

  // sums[m]: of numbers first + m of units. Returns the lane's part of what zeros add to every score.
  template <class Warp>
  KVA_LANE_CODE static float multiply(Warp& warp, const NarrowQuery& query, const NarrowLane& at,
                                      const SidePage& page, const UnitAddress& address, float power,
                                      int32_t first, int32_t count, float (&sums)[4][4]) {
    const int32_t row_bytes = packed_bytes(kBits, page.tokens);
    const uint8_t* rows =
        page.payload + page.format->codes_at + address.at + int64_t{2} * at.quarter * row_bytes;
    float zeros = 0.0f;
    KVA_UNROLL_TWICE
    for (int i = 0; i < kWidth / 16; ++i) {
      RawUnit raw[4];
      float scaled[4];
      KVA_UNROLL
      for (int n = 0; n < 4; ++n) {
        const int32_t row = 16 * i + n % 2 + n / 2 * 8;
        raw[n] = load_raw<kToken>(rows + row * row_bytes, address.plane, true);
        const int32_t channel = row + 2 * at.quarter;
        CodeScale of = {1.0f, 0.0f};
        if (!page.format->scale_by_token) of = row_scale<kind>(page, channel);
        const float number = query.at(channel);
        zeros = fmaf(number, of.zero, zeros);
        scaled[n] = number * power * of.scale;
      }
      uint32_t low[Terms::kCount], high[Terms::kCount];
      Terms::split(scaled[0], scaled[1], low);
      Terms::split(scaled[2], scaled[3], high);
      KVA_UNROLL
      for (int m = 0; m < 4; ++m) {
        if (m >= count) break;
        const uint32_t a[4] = {
            Unit::across(raw[0], raw[1], first + m, 0), Unit::across(raw[0], raw[1], first + m, 1),
            Unit::across(raw[2], raw[3], first + m, 0), Unit::across(raw[2], raw[3], first + m, 1)};
        KVA_UNROLL
        for (int n = 0; n < Terms::kCount; ++n) {
          warp.template multiply<F16Numbers>(a, low[n], high[n], sums[m]);
        }
      }
    }
    return zeros;
  }

  float largest_;   // of query row `eighth`, the size of its largest number
  OfColumns sums_;  // of the queries' numbers
};

}  // namespace kva
