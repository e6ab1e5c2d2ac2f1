#include "kernels/tensor_units.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace kva {
namespace {

void expect_number(uint32_t pair, int half, float scale, float wanted) {
  const float number = f16_value(static_cast<uint16_t>(pair >> (16 * half))) * scale;
  if (std::isnan(wanted))
    EXPECT_TRUE(std::isnan(number)) << number;
  else
    EXPECT_EQ(number, wanted);
}

// What the kind's units are by their own numbers, in all places of a product.
template <SideKind kind, class Number>
void expect_units(const RawUnit& a, const RawUnit& b, const Number& number) {
  using Unit = TensorUnitOf<kind>;
  for (int p = 0; p < 4; ++p)
    for (int i = 0; i < 2; ++i) {
      expect_number(Unit::along(a, p), i, kTensorUnitScale<kind>, number(a, Unit::number(p, i)));
      const int crossed = Unit::crossed(p, i);
      expect_number(Unit::across(a, b, p, i), 0, kTensorUnitScale<kind>, number(a, crossed));
      expect_number(Unit::across(a, b, p, i), 1, kTensorUnitScale<kind>, number(b, crossed));
    }
}

template <SideKind kind>
void expect_dense_units() {
  // Every fp8 number is in every place once.
  for (uint32_t first = 0; first < 256; ++first) {
    RawUnit a = {}, b = {};
    for (uint32_t j = 0; j < 8; ++j) {
      a.words[j / 4] |= ((first + 31 * j) & 255u) << (8 * (j % 4));
      b.words[j / 4] |= ((first + 77 * j + 5) & 255u) << (8 * (j % 4));
    }
    expect_units<kind>(a, b, [](const RawUnit& raw, int j) { return unit_number<kind>(raw, j); });
  }
}

template <SideKind kind>
void expect_code_units() {
  constexpr int kBits = side_bits(kind);
  std::mt19937 random(5);
  for (int i = 0; i < 200; ++i) {
    RawUnit a = {}, b = {};
    for (RawUnit* raw : {&a, &b})
      for (int word = 0; word < (kBits == 8 ? 2 : 1); ++word) {
        raw->words[word] = static_cast<uint32_t>(random());
        if constexpr (kBits < 4) raw->words[word] &= (1u << (8 * kBits)) - 1;
      }
    expect_units<kind>(a, b, [](const RawUnit& raw, int j) {
      return static_cast<float>(unit_code<kBits>({raw.words[0], raw.words[1]}, j));
    });
  }
}

TEST(TensorUnits, Fp8IsExact) {
  expect_dense_units<SideKind::kE4M3>();
  expect_dense_units<SideKind::kE5M2>();
}

TEST(TensorUnits, CodesAreWholeNumbers) {
  expect_code_units<SideKind::kBits8>();
  expect_code_units<SideKind::kBits4>();
  expect_code_units<SideKind::kBits3>();
  expect_code_units<SideKind::kBits2>();
}

}  // namespace
}  // namespace kva
