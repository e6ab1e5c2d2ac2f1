// How far a number is from the rest of its group, for CPU and CUDA alike: |x - mean| / sqrt(std), in f32.
//
// Which numbers are the farthest must not depend on who adds up. So sums have one order: number i of a group
// is added to sum i % 32, then sums to their neighbours, two by two. What is summed up are differences to the
// group's first number: it is at most sqrt(n) deviations away from the mean of n numbers, which bounds what
// the difference of two squares loses (by n roundings of the whole), and equal numbers have a deviation of
// exactly 0.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/value_math.h"

namespace kva {

inline constexpr int kSpreadParts = 4;  // of a group, apart from each other
inline constexpr int kSpreadOctet = 8;  // neighbours; part p has the octets p, p + 4, ...

struct SpreadSums {
  float sum = 0.0f;
  float squares = 0.0f;
};

// A part's sums while they grow.
class SpreadPart {
 public:
  // Of number `i` of an octet.
  KVA_HOST_DEVICE void add(int i, float difference) {
    sums_[i] += difference;
    squares_[i] += difference * difference;
  }
  KVA_HOST_DEVICE SpreadSums sums() const { return {folded(sums_), folded(squares_)}; }

 private:
  KVA_HOST_DEVICE static float folded(const float (&of)[kSpreadOctet]) {
    return ((of[0] + of[1]) + (of[2] + of[3])) + ((of[4] + of[5]) + (of[6] + of[7]));
  }

  float sums_[kSpreadOctet] = {};
  float squares_[kSpreadOctet] = {};
};

struct Spread {
  float mean;
  float closeness;  // 1 / sqrt(std); 0 where all numbers are equal
};

// Of `numbers` numbers, the first of them `first`.
KVA_HOST_DEVICE inline Spread spread_of(float first, float numbers, const SpreadSums (&parts)[kSpreadParts]) {
  const float sum = (parts[0].sum + parts[1].sum) + (parts[2].sum + parts[3].sum);
  const float squares = (parts[0].squares + parts[1].squares) + (parts[2].squares + parts[3].squares);
  const float share = 1.0f / numbers;
  const float offset = sum * share;
  const float variance = squares * share - offset * offset;
  return {first + offset, variance > 0.0f ? 1.0f / sqrtf(sqrtf(variance)) : 0.0f};
}

KVA_HOST_DEVICE inline float distance_of(float x, const Spread& spread) {
  return fabsf(x - spread.mean) * spread.closeness;
}
// Orders as distances do, which are not negative. 0 is no distance's.
KVA_HOST_DEVICE inline uint32_t distance_key(float distance) { return bits_of(distance) + 1; }

// Of a group of `count` numbers, those that is_kept(i) does not say are kept anyway. number(i): the i-th.
template <class Number, class Kept>
KVA_HOST_DEVICE Spread group_spread(int32_t count, const Number& number, const Kept& is_kept) {
  int32_t start = 0;
  while (start < count && is_kept(start)) ++start;
  if (start == count) return {0.0f, 0.0f};
  const float first = number(start);
  float numbers = 0.0f;
  SpreadSums parts[kSpreadParts];
  for (int part = 0; part < kSpreadParts; ++part) {
    SpreadPart sums;
    for (int32_t octet = part * kSpreadOctet; octet < count; octet += kSpreadParts * kSpreadOctet) {
      KVA_UNROLL
      for (int i = 0; i < kSpreadOctet; ++i) {
        if (octet + i >= count || is_kept(octet + i)) continue;
        numbers += 1.0f;
        sums.add(i, number(octet + i) - first);
      }
    }
    parts[part] = sums.sums();
  }
  return spread_of(first, numbers, parts);
}

}  // namespace kva
