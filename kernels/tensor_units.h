// Units of rows (kernels/packed_math.h) as operands of tensor cores: pairs of 16-bit numbers in a register.
// Codes become whole numbers of f16, exactly; dense numbers stay as they are.
//
// A product's sum runs along rows, or across them: then a pair is of two rows. Which of a unit's numbers are
// where is free as long as both operands agree; here it is what takes the fewest instructions.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/attention_units.h"
#include "kernels/host_device.h"
#include "kernels/tile_numbers.h"
#include "kernels/value_math.h"

namespace kva {

// Bytes of a and then of b, by the four lowest nibbles of `which`.
KVA_LANE_CODE inline uint32_t pick_bytes(uint32_t a, uint32_t b, uint32_t which) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(a, b, which);
#else
  uint32_t picked = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t byte = (which >> (4 * i)) & 7u;
    picked |= (((byte < 4 ? a : b) >> (8 * (byte & 3u))) & 255u) << (8 * i);
  }
  return picked;
#endif
}

// Two whole numbers as f16: those in the halves of `bits` under `mask`, shifted left by `shift`, and below
// 1024 even so. As the last bits of 1024 + n they are there already; what is left is exact arithmetic.
KVA_LANE_CODE inline uint32_t whole_numbers(uint32_t bits, uint32_t mask, int shift) {
#if defined(__CUDA_ARCH__)
  uint32_t raised, numbers;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;"
      : "=r"(raised)
      : "r"(bits), "r"(mask), "r"(0x64006400u));  // (a & b) | c
  if (shift == 0) {
    asm("sub.f16x2 %0, %1, %2;" : "=r"(numbers) : "r"(raised), "r"(0x64006400u));
  } else {
    const auto both = [](uint32_t half) { return half | half << 16; };
    const auto exponent = static_cast<uint32_t>(shift);
    asm("fma.rn.f16x2 %0, %1, %2, %3;"
        : "=r"(numbers)
        : "r"(raised), "r"(both((15u - exponent) << 10)), "r"(both(0x8000u | (25u - exponent) << 10)));
  }
  return numbers;
#else
  const auto number = [&](uint32_t half) { return f16_code(static_cast<float>((half & 0xffffu) >> shift)); };
  return number(bits & mask) | static_cast<uint32_t>(number((bits & mask) >> 16)) << 16;
#endif
}

// Of rows of codes of so many bits, or of dense numbers (16).
template <int bits>
struct TensorUnit;

template <>
struct TensorUnit<16> {
  // Numbers number(p, 0) and number(p, 1) of a unit, 0 <= p < 4.
  KVA_HOST_DEVICE static constexpr int number(int p, int i) { return 2 * p + i; }
  KVA_LANE_CODE static uint32_t along(const RawUnit& raw, int p) { return raw.words[p]; }
  // Number crossed(tile, upper) of the same unit of two rows, 0 <= tile < 4.
  KVA_HOST_DEVICE static constexpr int crossed(int tile, int upper) { return 2 * tile + upper; }
  KVA_LANE_CODE static uint32_t across(const RawUnit& a, const RawUnit& b, int tile, int upper) {
    return pick_bytes(a.words[tile], b.words[tile], upper ? 0x7632u : 0x5410u);
  }
};

// Byte `byte` of both, in the low bytes of the halves; the other bytes are something.
KVA_LANE_CODE inline uint32_t paired_bytes(uint32_t a, uint32_t b, int byte) {
  return pick_bytes(a, b, static_cast<uint32_t>(byte | (4 + byte) << 8));
}

template <>
struct TensorUnit<8> {
  KVA_HOST_DEVICE static constexpr int number(int p, int i) { return 2 * p + i; }
  KVA_LANE_CODE static uint32_t along(const RawUnit& raw, int p) {
    return whole_numbers(pick_bytes(raw.words[p / 2], 0, p % 2 ? 0x4342u : 0x4140u), 0x00ff00ffu, 0);
  }
  KVA_HOST_DEVICE static constexpr int crossed(int tile, int upper) { return tile + 4 * upper; }
  KVA_LANE_CODE static uint32_t across(const RawUnit& a, const RawUnit& b, int tile, int upper) {
    return whole_numbers(paired_bytes(a.words[upper], b.words[upper], tile), 0x00ff00ffu, 0);
  }
};

template <>
struct TensorUnit<4> {
  KVA_HOST_DEVICE static constexpr int number(int p, int i) { return p / 2 + 2 * i + 4 * (p % 2); }
  KVA_LANE_CODE static uint32_t along(const RawUnit& raw, int p) {
    return half_bytes(raw.words[0] >> (8 * (p / 2)), p % 2);
  }
  KVA_HOST_DEVICE static constexpr int crossed(int tile, int upper) { return tile + 4 * upper; }
  KVA_LANE_CODE static uint32_t across(const RawUnit& a, const RawUnit& b, int tile, int upper) {
    return half_bytes(paired_bytes(a.words[0], b.words[0], tile), upper);
  }

 private:
  KVA_LANE_CODE static uint32_t half_bytes(uint32_t bytes, int upper) {
    return upper ? whole_numbers(bytes, 0x00f000f0u, 4) : whole_numbers(bytes, 0x000f000fu, 0);
  }
};

template <>
struct TensorUnit<3> {
  KVA_HOST_DEVICE static constexpr int number(int p, int i) { return p + 4 * i; }
  KVA_LANE_CODE static uint32_t along(const RawUnit& raw, int p) {
    const uint32_t halves = (raw.words[0] & 0xfffu) | (raw.words[0] >> 12) << 16;
    // Behind the last bits of 1024 there is room for three.
    if (p == 3) return whole_numbers(halves >> 9, 0x00070007u, 0);
    return whole_numbers(halves, 0x00070007u << (3 * p), 3 * p);
  }
  KVA_HOST_DEVICE static constexpr int crossed(int tile, int upper) { return tile + 4 * upper; }
  KVA_LANE_CODE static uint32_t across(const RawUnit& a, const RawUnit& b, int tile, int upper) {
    const int shift = 3 * crossed(tile, upper);
    return whole_numbers(((a.words[0] >> shift) & 7u) | (b.words[0] >> shift) << 16, 0x00070007u, 0);
  }
};

template <>
struct TensorUnit<2> {
  KVA_HOST_DEVICE static constexpr int number(int p, int i) { return 2 * p + i; }
  KVA_LANE_CODE static uint32_t along(const RawUnit& raw, int p) {
    return whole_numbers(pick_bytes(raw.words[0], 0, 0x4140u), 0x00030003u << (2 * p), 2 * p);
  }
  KVA_HOST_DEVICE static constexpr int crossed(int tile, int upper) {
    return tile % 2 + 4 * (tile / 2) + 2 * upper;
  }
  KVA_LANE_CODE static uint32_t across(const RawUnit& a, const RawUnit& b, int tile, int upper) {
    const uint32_t bytes = paired_bytes(a.words[0], b.words[0], tile % 2) >> (4 * (tile / 2));
    return upper ? whole_numbers(bytes, 0x000c000cu, 2) : whole_numbers(bytes, 0x00030003u, 0);
  }
};

// Of rows of fp8. E5M2 is the upper byte of f16; of E4M3's numbers there is a share, as f16 has one more bit
// of exponent, and a bias that is larger by 8: kTensorUnitScale.
template <SideKind kind>
struct Fp8TensorUnit {
  KVA_HOST_DEVICE static constexpr int number(int p, int i) { return 2 * p + i; }
  KVA_LANE_CODE static uint32_t along(const RawUnit& raw, int p) {
    return numbers(pick_bytes(raw.words[p / 2], 0, p % 2 ? 0x3424u : 0x1404u));
  }
  KVA_HOST_DEVICE static constexpr int crossed(int tile, int upper) { return tile + 4 * upper; }
  KVA_LANE_CODE static uint32_t across(const RawUnit& a, const RawUnit& b, int tile, int upper) {
    const auto byte = static_cast<uint32_t>(tile);
    return numbers(pick_bytes(a.words[upper], b.words[upper], byte << 4 | (4 + byte) << 12));
  }

 private:
  // Of what the upper bytes of the halves hold.
  KVA_LANE_CODE static uint32_t numbers(uint32_t bytes) {
    if constexpr (kind == SideKind::kE5M2) return bytes & 0xff00ff00u;
    const uint32_t halves = ((bytes >> 1) & 0x3f803f80u) | (bytes & 0x80008000u);
    // All ones are not a number: one more than that carries.
    return halves | ((halves + 0x00800080u) & 0x40004000u);
  }
};

template <SideKind kind>
using TensorUnitOf = std::conditional_t<kind == SideKind::kE4M3 || kind == SideKind::kE5M2,
                                        Fp8TensorUnit<kind>, TensorUnit<side_bits(kind)>>;
// What numbers of such units are multiplied by to be those that are stored.
template <SideKind kind>
inline constexpr float kTensorUnitScale = kind == SideKind::kE4M3 ? 256.0f : 1.0f;

// What a kind's numbers are in a product.
template <SideKind kind>
using TensorNumbers = std::conditional_t<kind == SideKind::kBF16, BF16Numbers, F16Numbers>;

// f32 numbers as sums of 16-bit ones: as many terms as keep what f32 keeps of a number, or nearly (f16: 22
// bits of the largest, where that is scaled to some 2^10).
template <class Numbers>
struct TensorTerms {
  static constexpr int kCount = std::is_same_v<Numbers, BF16Numbers> ? 3 : 2;

  KVA_LANE_CODE static void split(float low, float high, uint32_t (&terms)[kCount]) {
    split_terms<Numbers>(low, high, terms);
  }
};

}  // namespace kva
