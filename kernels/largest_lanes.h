// The n largest of many keys, of equal ones those at the lowest places: by one digit after the other, from
// counts of how many keys have it. What threads count and mark together are integers and bits, so that the
// order in which they come shows nowhere.
//
// A Team is that of kernels/pack_lanes.h, with take(to, n), which adds to what threads share and returns what
// was there, and join(to, bits), which sets bits there.
#pragma once

#include <cstdint>

#include "kernels/bit_math.h"
#include "kernels/host_device.h"
#include "kernels/scale_math.h"

namespace kva {

inline constexpr int kDigitBits = 8;
inline constexpr int kDigitValues = 1 << kDigitBits;

// What threads share meanwhile. A word has the bits of 32 places.
struct LargestMemory {
  uint32_t* counts = nullptr;  // [kDigitValues]
  uint32_t* found =
      nullptr;  // [2]: the digits of the n-th largest key; how many of the keys that have them are wanted
  uint32_t* chosen = nullptr;  // [words]: the n largest, once they are listed
  uint32_t* equal = nullptr;   // [words]: those whose key is the n-th largest
  int32_t* starts = nullptr;   // [words]: how many are chosen before the word's places
};
KVA_HOST_DEVICE constexpr int32_t place_words(int32_t places) { return (places + 31) / 32; }
KVA_HOST_DEVICE constexpr int32_t largest_bytes(int32_t places) {
  return (kDigitValues + 2 + 3 * place_words(places)) * 4;
}
// In largest_bytes() at `at`, which is 4-byte aligned.
KVA_LANE_CODE inline LargestMemory largest_memory(void* at, int32_t places) {
  LargestMemory memory;
  memory.counts = static_cast<uint32_t*>(at);
  memory.found = memory.counts + kDigitValues;
  memory.chosen = memory.found + 2;
  memory.equal = memory.chosen + place_words(places);
  memory.starts = reinterpret_cast<int32_t*>(memory.equal + place_words(places));
  return memory;
}

// One warp of a team as a team of its own: where there is little to do, a block would only meet.
template <class Team, class Warp>
struct WarpTeam {
  template <class Body>
  KVA_LANE_CODE void each(int32_t count, const Body& body) const {
    for (int32_t i = lanes.lane(); i < count; i += 32) body(i);
    lanes.sync();
  }
  template <class Body>
  KVA_LANE_CODE void warp(const Body& body) const {
    body(lanes);
    lanes.sync();
  }
  KVA_LANE_CODE uint32_t take(uint32_t* from, uint32_t count) const { return team.take(from, count); }
  KVA_LANE_CODE void join(uint32_t* to, uint32_t bits) const { team.join(to, bits); }

  Team& team;
  Warp& lanes;
};

// The lane's count and those of the lanes before it: whole numbers below 2^24.
template <class Warp>
KVA_LANE_CODE float running_count(Warp& warp, float count) {
  for (int step = 1; step < 32; step *= 2) {
    const float before = warp.shuffle(count, (warp.lane() - step) & 31);
    if (warp.lane() >= step) count += before;
  }
  return count;
}

// The next digit of the wanted key, from the top of counts that it leaves at zero.
template <class Warp>
KVA_LANE_CODE void find_digit(Warp& warp, const LargestMemory& memory) {
  constexpr int kOfLane = kDigitValues / 32;
  const int first = kDigitValues - kOfLane * (warp.lane() + 1);
  uint32_t* own = memory.counts + first;
  uint32_t count = 0;
  for (int n = 0; n < kOfLane; ++n) count += own[n];
  const auto upto = static_cast<uint32_t>(running_count(warp, static_cast<float>(count)));
  const uint32_t prefix = memory.found[0];
  const uint32_t wanted = memory.found[1];
  warp.sync();  // before another lane writes them
  if (upto - count < wanted && wanted <= upto) {
    uint32_t left = wanted - (upto - count);
    int digit = kOfLane - 1;
    for (; left > own[digit]; --digit) left -= own[digit];
    memory.found[0] = prefix << kDigitBits | static_cast<uint32_t>(first + digit);
    memory.found[1] = left;
  }
  for (int n = 0; n < kOfLane; ++n) own[n] = 0;
}

// The first `bits` bits of the n-th largest of `count` keys, key(i), into memory.found; 1 <= n <= count <
// 2^24.
template <int bits, class Team, class Key>
KVA_LANE_CODE void find_largest(Team& team, const LargestMemory& memory, int32_t count, int32_t n,
                                const Key& key) {
  team.each(kDigitValues, [&](int32_t i) {
    memory.counts[i] = 0;
    if (i == 0) memory.found[0] = 0;
    if (i == 1) memory.found[1] = static_cast<uint32_t>(n);
  });
  for (int shift = 32 - kDigitBits; shift >= 32 - bits; shift -= kDigitBits) {
    const uint32_t prefix = memory.found[0];
    team.each(count, [&](int32_t i) {
      const uint32_t digits = key(i) >> shift;
      if (digits >> kDigitBits == prefix) team.take(memory.counts + digits % kDigitValues, 1);
    });
    team.warp([&](auto& warp) { find_digit(warp, memory); });
  }
}

// Chooses among those whose key is the n-th largest, and counts what is chosen.
template <class Warp>
KVA_LANE_CODE void choose_equal(Warp& warp, const LargestMemory& memory, int32_t words) {
  const int32_t part = (words + 31) / 32;
  const int32_t first = smaller(warp.lane() * part, words);
  const int32_t end = smaller(first + part, words);
  uint32_t over = 0;
  uint32_t equal = 0;
  for (int32_t w = first; w < end; ++w) {
    over += ones_of(memory.chosen[w]);
    equal += ones_of(memory.equal[w]);
  }
  const auto over_before =
      static_cast<int32_t>(running_count(warp, static_cast<float>(over)) - static_cast<float>(over));
  const auto equal_before =
      static_cast<int32_t>(running_count(warp, static_cast<float>(equal)) - static_cast<float>(equal));
  const auto wanted = static_cast<int32_t>(memory.found[1]);
  int32_t start = over_before + smaller(equal_before, wanted);
  int32_t left = wanted - equal_before;
  for (int32_t w = first; w < end; ++w) {
    uint32_t chosen = memory.chosen[w];
    for (uint32_t rest = memory.equal[w]; left > 0 && rest != 0; --left) {
      chosen |= lowest_one(rest);
      rest ^= lowest_one(rest);
    }
    memory.chosen[w] = chosen;
    memory.starts[w] = start;
    start += static_cast<int32_t>(ones_of(chosen));
  }
}

// Chooses the n largest of `count` keys, of which none left out is one of the n largest of all `places`:
// key(i) is at place(i). 0 < n <= count.
template <class Team, class Key, class Place>
KVA_LANE_CODE void choose_largest(Team& team, const LargestMemory& memory, int32_t places, int32_t count,
                                  int32_t n, const Key& key, const Place& place) {
  const int32_t words = place_words(places);
  find_largest<32>(team, memory, count, n, key);
  team.each(words, [&](int32_t w) { memory.chosen[w] = memory.equal[w] = 0; });
  const uint32_t last = memory.found[0];
  team.each(count, [&](int32_t i) {
    const uint32_t of = key(i);
    if (of < last) return;
    const int32_t at = place(i);
    team.join((of > last ? memory.chosen : memory.equal) + at / 32, 1u << (at % 32));
  });
  team.warp([&](auto& warp) { choose_equal(warp, memory, words); });
}

// body(i, place of the i-th), of those that choose_largest() has chosen among as many, by place.
template <class Team, class Place, class Body>
KVA_LANE_CODE void each_chosen(Team& team, const LargestMemory& memory, int32_t count, const Place& place,
                               const Body& body) {
  team.each(count, [&](int32_t i) {
    const int32_t at = place(i);
    const uint32_t word = memory.chosen[at / 32];
    const uint32_t bit = 1u << (at % 32);
    if (word & bit) body(memory.starts[at / 32] + static_cast<int32_t>(ones_of(word & (bit - 1u))), at);
  });
}

}  // namespace kva
