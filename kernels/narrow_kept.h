// What pages keep beside their codes, outliers and channels of f16, for the few query rows of
// kernels/attention_narrow.h.
//
// Kept numbers are few and anywhere, so a product's first operand says where each of 16 of them belongs: its
// rows are tokens (scores) or channels (sums of values), and its columns have one number each in the row of
// their place. The second operand is what the numbers add to each query row: f32 as three terms of bf16,
// which keep its range. So nothing is added in an order that could change.
#pragma once

#include <cstdint>

#include "kernels/attention_work.h"
#include "kernels/narrow_keys.h"
#include "kernels/narrow_lane.h"

namespace kva {

// A number that a page keeps, and how far it is from what its code stands for.
struct KeptNumber {
  int32_t token = 0;
  int32_t channel = 0;
  float beyond_code = 0.0f;
};

// Those of tokens [first, first + tokens) of a packed page: outliers first, then the channels.
template <int kWidth>
class KeptNumbers {
 public:
  KVA_LANE_CODE KeptNumbers(const SidePage& page, int32_t first, int32_t tokens)
      : page_(page), first_(first), tokens_(tokens) {
    const SideFormat& format = *page.format;
    const int32_t end = first + tokens;
    from_ = first == 0 ? 0 : first_outlier(format, page.payload, static_cast<uint32_t>(first * kWidth));
    const int32_t to = end == page.tokens
                           ? format.outliers
                           : first_outlier(format, page.payload, static_cast<uint32_t>(end * kWidth));
    outliers_ = to - from_;
  }

  KVA_LANE_CODE int32_t count() const { return outliers_ + page_.format->dense_channels * tokens_; }

  // Behind the last one: a number that adds nothing.
  KVA_LANE_CODE KeptNumber at(int32_t i) const {
    const SideFormat& format = *page_.format;
    if (i >= count()) return {first_, 0, 0.0f};
    if (i < outliers_) {
      const auto place =
          static_cast<int32_t>(listed_place(page_.payload + format.places_at, format.place_bits, from_ + i));
      const int32_t token = place / kWidth;
      return kept(token, place - token * kWidth, f16_at(page_.payload, format.outlier_values_at, from_ + i));
    }
    const int32_t channel = (i - outliers_) / tokens_;
    const int32_t token = first_ + i - outliers_ - channel * tokens_;
    return kept(token, reinterpret_cast<const uint16_t*>(page_.payload + format.channels_at)[channel],
                f16_at(page_.payload, format.channel_values_at, channel * page_.tokens + token));
  }

 private:
  KVA_LANE_CODE KeptNumber kept(int32_t token, int32_t channel, float number) const {
    return {token, channel, number - kept_code_value(*page_.format, page_.payload, token, channel)};
  }

  const SidePage& page_;
  int32_t first_;
  int32_t tokens_;
  int32_t from_;
  int32_t outliers_;
};

// In each half: 0x3c00 where both halves are the same, else 0. That is 1 as f16, and kOneHalf as bf16. The
// halves are below 0x7c00.
inline constexpr float kOneHalf = 0x1p-7f;
KVA_LANE_CODE inline uint32_t equal_halves(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
  uint32_t ones;
  asm("set.eq.f16x2.f16x2 %0, %1, %2;" : "=r"(ones) : "r"(a), "r"(b));
  return ones;
#else
  return ((a & 0xffffu) == (b & 0xffffu) ? 0x3c00u : 0u) | (a >> 16 == b >> 16 ? 0x3c000000u : 0u);
#endif
}

// Sixteen kept numbers as a product's operands: a lane has four, those of its rows of the second operand.
struct KeptOperands {
  using Terms = TensorTerms<BF16Numbers>;
  KeptNumber numbers[4];

  // The first operand's registers, for rows `lower` and `upper` of what rows are; of(number) is where it
  // belongs.
  template <class Of>
  KVA_LANE_CODE void rows(int32_t lower, int32_t upper, const Of& of, uint32_t (&a)[4]) const {
    KVA_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int32_t row = i % 2 ? upper : lower;
      a[i] = equal_halves(halves(of(numbers[i / 2 * 2]), of(numbers[i / 2 * 2 + 1])), halves(row, row));
    }
  }
  // The second's: factor(number) times what the number has beyond its code.
  template <class Factor>
  KVA_LANE_CODE void columns(const Factor& factor, uint32_t (&b)[2][Terms::kCount]) const {
    const auto part = [&](int i) { return factor(numbers[i]) * (numbers[i].beyond_code / kOneHalf); };
    KVA_UNROLL
    for (int half = 0; half < 2; ++half) Terms::split(part(2 * half), part(2 * half + 1), b[half]);
  }
  template <class Warp>
  KVA_LANE_CODE static void multiply(Warp& warp, const uint32_t (&a)[4],
                                     const uint32_t (&b)[2][Terms::kCount], float (&sums)[4]) {
    KVA_UNROLL
    for (int n = Terms::kCount - 1; n >= 0; --n)
      warp.template multiply<BF16Numbers>(a, b[0][n], b[1][n], sums);
  }

 private:
  KVA_LANE_CODE static uint32_t halves(int32_t low, int32_t high) {
    return static_cast<uint32_t>(low) | static_cast<uint32_t>(high) << 16;
  }
};

// Calls body(KeptOperands) for every sixteen that the page keeps of tokens [first, first + tokens).
template <int kWidth, class Warp, class Body>
KVA_LANE_CODE void for_kept_operands(Warp& warp, const NarrowLane& at, const SidePage& page, int32_t first,
                                     int32_t tokens, const Body& body) {
  const KeptNumbers<kWidth> kept(page, first, tokens);
  const int32_t count = kept.count();
  for (int32_t from = 0; from < count; from += 32) {
    const KeptNumber own = kept.at(from + warp.lane());
    const uint32_t place = static_cast<uint32_t>(own.token) | static_cast<uint32_t>(own.channel) << 16;
    for (int32_t half = 0; half < 32 && from + half < count; half += 16) {
      KeptOperands operands;
      KVA_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int lane = half + 2 * at.quarter + i % 2 + i / 2 * 8;
        const uint32_t of = warp.shuffle(place, lane);
        operands.numbers[i] = {static_cast<int32_t>(of & 0xffffu), static_cast<int32_t>(of >> 16),
                               warp.shuffle(own.beyond_code, lane)};
      }
      body(operands);
    }
  }
}

// Adds to the scores of the page's tokens [first, first + tokens), which are in rows from `scores` on.
template <int kWidth, class Warp>
KVA_LANE_CODE void add_kept_scores(Warp& warp, const NarrowLane& at, const NarrowQuery& query,
                                   const SidePage& page, int32_t first, int32_t tokens,
                                   NarrowScores* scores) {
  for_kept_operands<kWidth>(warp, at, page, first, tokens, [&](const KeptOperands& kept) {
    uint32_t b[2][KeptOperands::Terms::kCount];
    kept.columns([&](const KeptNumber& number) { return query.at(number.channel); }, b);
    for (int32_t row = at.eighth; row - at.eighth < tokens; row += kSlotTokens) {
      uint32_t a[4];
      kept.rows(
          row, row + 8, [&](const KeptNumber& number) { return number.token - first; }, a);
      if (!warp.any((a[0] | a[1] | a[2] | a[3]) != 0)) continue;
      float sums[4] = {};
      KeptOperands::multiply(warp, a, b, sums);
      KVA_UNROLL
      for (int i = 0; i < 4; ++i) scores[row + i / 2 * 8][2 * at.quarter + i % 2] += sums[i];
    }
  });
}

}  // namespace kva
