#include "kernels/convert.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/kernels/simd_targets.h"

namespace kva {
namespace {

bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

TEST(Convert, EveryCodeWidensAsTheSingleValueDoes) {
  std::vector<uint16_t> codes(0x10000);
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint16_t>(i);
  std::vector<float> values(codes.size());
  for_each_simd_target([&] {
    to_f32(codes.data(), DType::kF16, values.data(), 0x10000);
    for (std::size_t i = 0; i < codes.size(); ++i) ASSERT_TRUE(same(values[i], f32_from_f16(codes[i]))) << i;
    to_f32(codes.data(), DType::kBF16, values.data(), 0x10000);
    for (std::size_t i = 0; i < codes.size(); ++i) ASSERT_TRUE(same(values[i], f32_from_bf16(codes[i]))) << i;
  });
}

// Random bit patterns reach every exponent; the edges are ties, overflow, subnormals and the infinities.
std::vector<float> awkward_values() {
  std::vector<float> values = {0.0f,
                               -0.0f,
                               65504.0f,
                               65519.9f,
                               65520.0f,
                               -65520.0f,
                               0x1p-24f,
                               0x1p-25f,
                               0x1.8p-25f,
                               0x1p-14f,
                               0x1.ffcp-15f,
                               1.0f + 0x1p-11f,
                               1.0f + 0x1.8p-10f,
                               std::numeric_limits<float>::max(),
                               std::numeric_limits<float>::infinity(),
                               -std::numeric_limits<float>::infinity(),
                               std::numeric_limits<float>::quiet_NaN(),
                               std::bit_cast<float>(0x7f800001u)};
  std::mt19937 random(1);
  while (values.size() < 50003) values.push_back(std::bit_cast<float>(static_cast<uint32_t>(random())));
  while (values.size() < 100003)
    values.push_back(std::ldexp(1.0f + static_cast<float>(random() % 4096) / 4096.0f,
                                static_cast<int>(random() % 44) - 27));
  return values;
}

TEST(Convert, NarrowsAsTheSingleValueDoes) {
  const std::vector<float> values = awkward_values();
  std::vector<uint16_t> codes(values.size());
  const auto count = static_cast<int64_t>(values.size());
  for_each_simd_target([&] {
    from_f32(values.data(), DType::kF16, codes.data(), count);
    for (std::size_t i = 0; i < codes.size(); ++i)
      ASSERT_TRUE(same(f32_from_f16(codes[i]), f32_from_f16(f16_from_f32(values[i])))) << values[i];
    from_f32(values.data(), DType::kBF16, codes.data(), count);
    for (std::size_t i = 0; i < codes.size(); ++i) ASSERT_EQ(codes[i], bf16_from_f32(values[i])) << values[i];
  });
}

TEST(Convert, WritesNothingPastTheEnd) {
  const std::vector<float> values(67, 1.5f);
  for_each_simd_target([&] {
    for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (int64_t count : {0, 1, 15, 16, 17, 33, 67}) {
        std::vector<uint16_t> stored(67 * 2 + 4, 0xabcd);
        from_f32(values.data(), type, stored.data(), count);
        EXPECT_EQ(stored[static_cast<std::size_t>(count * dtype_bytes(type) / 2)], 0xabcd);
        std::vector<float> back(68, -1.0f);
        to_f32(stored.data(), type, back.data(), count);
        EXPECT_EQ(back[static_cast<std::size_t>(count)], -1.0f);
        if (count > 0) {
          EXPECT_EQ(back[static_cast<std::size_t>(count - 1)], 1.5f);
        }
      }
    }
  });
}

}  // namespace
}  // namespace kva
