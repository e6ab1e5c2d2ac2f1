// Weighted sums of values for the few query rows of kernels/attention_narrow.h: products of channels with
// tokens, of tokens with the query rows' weights.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/narrow_kept.h"
#include "kernels/narrow_lane.h"

namespace kva {

template <SideKind kind, int kWidth>
class NarrowValues {
 public:
  // Where o and l change by `factors`.
  KVA_LANE_CODE void rescale(const OfColumns& factors) {
    for_sums([&](float& sum, int column) { sum *= column ? factors.second : factors.first; });
    zeros_.first *= factors.first;
    zeros_.second *= factors.second;
  }

  // Adds the tokens of a slot. tokens: its 16. of_lower, of_upper: weights of its tokens `eighth` and
  // `eighth` + 8.
  template <class Warp>
  KVA_LANE_CODE void add(Warp& warp, const NarrowLane& at, const SidePage& page, const int32_t* tokens,
                         const OfColumns& of_lower, const OfColumns& of_upper) {
    const CodeScale of[2] = {row_scale<kind>(page, tokens[at.eighth]),
                             row_scale<kind>(page, tokens[at.eighth + 8])};
    if constexpr (is_packed(kind)) {
      const float largest = fmaxf(fabsf(of[0].scale), fabsf(of[1].scale));
      if (warp.any(largest * power_ >= 0x1p15f)) lower_power(most_of_eighths(warp, largest));
    }
    uint32_t b[Terms::kCount][2];
    split(warp, of_lower, of[0], b, 0);
    split(warp, of_upper, of[1], b, 1);
    const uint8_t* row[4];
    KVA_UNROLL
    for (int n = 0; n < 4; ++n)
      row[n] = Row::first(page) + tokens[2 * at.quarter + n % 2 + n / 2 * 8] * Row::kBytes +
               Row::unit_at(at.eighth);
    KVA_UNROLL
    for (int first = 0; first < kGroups; first += kTogether) {
      RawUnit raw[kTogether][4];
      KVA_UNROLL
      for (int g = 0; g < kTogether && first + g < kGroups; ++g) {
        KVA_UNROLL
        for (int n = 0; n < 4; ++n)
          raw[g][n] = Row::load(row[n], has(first + g, at) ? Row::unit_at(8 * (first + g)) : 0);
      }
      KVA_UNROLL
      for (int g = 0; g < kTogether && first + g < kGroups; ++g) {
        KVA_UNROLL
        for (int m = 0; m < 4; ++m) {
          const uint32_t a[4] = {
              Unit::across(raw[g][0], raw[g][1], m, 0), Unit::across(raw[g][0], raw[g][1], m, 1),
              Unit::across(raw[g][2], raw[g][3], m, 0), Unit::across(raw[g][2], raw[g][3], m, 1)};
          KVA_UNROLL
          for (int n = 0; n < Terms::kCount; ++n)
            warp.template multiply<Numbers>(a, b[n][0], b[n][1], sums_[first + g][m]);
        }
      }
    }
  }

  // Adds what the page keeps beside the codes of tokens [first, first + tokens), whose scores are in rows
  // from `scores` on. max: of query row `eighth`.
  template <class Warp>
  KVA_LANE_CODE void add_kept(Warp& warp, const NarrowLane& at, const SidePage& page, int32_t first,
                              int32_t tokens, const NarrowScores* scores, float max) {
    for_kept_operands<kWidth>(warp, at, page, first, tokens, [&](const KeptOperands& kept) {
      uint32_t b[2][KeptOperands::Terms::kCount];
      kept.columns(
          [&](const KeptNumber& number) {
            return score_weight(scores[number.token - first][at.eighth], max) * power_;
          },
          b);
      KVA_UNROLL
      for (int g = 0; g < kGroups; ++g) {
        const UnitPlaces places = unit_address<kind>(kWidth, 8 * g + at.eighth).places;
        KVA_UNROLL
        for (int m = 0; m < 4; ++m) {
          uint32_t a[4];
          kept.rows(
              places.place(Unit::crossed(m, 0)), places.place(Unit::crossed(m, 1)),
              [](const KeptNumber& number) { return number.channel; }, a);
          KeptOperands::multiply(warp, a, b, sums_[g][m]);
        }
      }
    });
  }

  // to: [rows, kWidth]
  template <class Warp>
  KVA_LANE_CODE void write(Warp& warp, const NarrowLane& at, int32_t rows, float* to) const {
    const OfColumns beside = {sum_of_eighths(warp, zeros_.first), sum_of_eighths(warp, zeros_.second)};
    const float inverse = inverse_power(power_) * kTensorUnitScale<kind>;
    KVA_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      if (!has(g, at)) break;
      const UnitPlaces places = unit_address<kind>(kWidth, 8 * g + at.eighth).places;
      KVA_UNROLL
      for (int m = 0; m < 4; ++m) {
        KVA_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int32_t row = 2 * at.quarter + i % 2;
          if (row < rows)
            to[row * kWidth + places.place(Unit::crossed(m, i / 2))] =
                fmaf(sums_[g][m][i], inverse, i % 2 ? beside.second : beside.first);
        }
      }
    }
  }

 private:
  using Numbers = TensorNumbers<kind>;
  static constexpr bool kKeepsRange = kind == SideKind::kBF16;  // f32's
  using Row = NarrowRow<kind, kWidth>;
  using Unit = TensorUnitOf<kind>;
  using Terms = TensorTerms<Numbers>;
  static constexpr int kGroups = (Row::kUnits + 7) / 8;  // units of a lane
  static constexpr int kTogether = side_bits(kind) == 16 ? 1 : 2;

  KVA_LANE_CODE static bool has(int g, const NarrowLane& at) {
    return 8 * g + 7 < Row::kUnits || 8 * g + at.eighth < Row::kUnits;
  }

  template <class Body>
  KVA_LANE_CODE void for_sums(const Body& body) {
    KVA_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      KVA_UNROLL
      for (int m = 0; m < 4; ++m) {
        KVA_UNROLL
        for (int i = 0; i < 4; ++i) body(sums_[g][m][i], i % 2);
      }
    }
  }

  // Scales may be this large from here on.
  KVA_LANE_CODE void lower_power(float largest) {
    const float wanted = power_to(largest, 13);
    const float change = wanted * inverse_power(power_);
    for_sums([&](float& sum, int) { sum *= change; });
    power_ = wanted;
  }

  // Weights times their token's scale, as one half of the products' second operand.
  template <class Warp>
  KVA_LANE_CODE void split(Warp& warp, const OfColumns& weights, const CodeScale& of,
                           uint32_t (&b)[Terms::kCount][2], int half) {
    zeros_.first = fmaf(weights.first, of.zero, zeros_.first);
    zeros_.second = fmaf(weights.second, of.zero, zeros_.second);
    uint32_t terms[Terms::kCount];
    Terms::split(weights.first * (of.scale * power_), weights.second * (of.scale * power_), terms);
    KVA_UNROLL
    for (int n = 0; n < Terms::kCount; ++n) b[n][half] = warp.transpose(terms[n]);
  }

  // By which weights are multiplied beside their scales. Those of codes, of which f16 knows none below 2^-24,
  // lower it.
  float power_ = is_packed(kind) ? 0x1p38f : kKeepsRange ? 1.0f : 0x1p13f;
  OfColumns zeros_ = {0.0f, 0.0f};  // weights by zeros, of the lane's tokens
  float sums_[kGroups][4][4] =
      {};  // [unit][pair of channels][lower or upper channel, first or second column]
};

}  // namespace kva
