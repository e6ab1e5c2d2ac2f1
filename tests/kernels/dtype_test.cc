#include "kernels/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace kva {
namespace {

TEST(Dtype, EveryHalfSurvivesARoundTrip) {
  for (uint32_t code = 0; code <= 0xffff; ++code) {
    const float value = f32_from_f16(static_cast<uint16_t>(code));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(f32_from_f16(f16_from_f32(value))));
    } else {
      ASSERT_EQ(f16_from_f32(value), code);
    }
  }
}

TEST(Dtype, HalfRoundsToNearestEven) {
  EXPECT_EQ(f16_from_f32(1.0f + 0x1p-11f), f16_from_f32(1.0f));               // a tie goes to even
  EXPECT_EQ(f16_from_f32(1.0f + 0x1.8p-10f), f16_from_f32(1.0f + 0x2p-10f));  // and up to even
  EXPECT_EQ(f16_from_f32(65519.0f), 0x7bff);
  EXPECT_EQ(f16_from_f32(65520.0f), 0x7c00);
  EXPECT_EQ(f16_from_f32(0x1p-25f), 0);  // half of the smallest subnormal is a tie with zero
  EXPECT_EQ(f16_from_f32(0x1.8p-25f), 1);
  EXPECT_EQ(f16_from_f32(-0.0f), 0x8000);
}

TEST(Dtype, EveryBfloatSurvivesARoundTrip) {
  for (uint32_t code = 0; code <= 0xffff; ++code) {
    const float value = f32_from_bf16(static_cast<uint16_t>(code));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(f32_from_bf16(bf16_from_f32(value))));
    } else {
      ASSERT_EQ(bf16_from_f32(value), code);
    }
  }
  EXPECT_EQ(bf16_from_f32(std::numeric_limits<float>::max()), 0x7f80);
}

TEST(Dtype, NamesAreWhatUsersType) {
  EXPECT_EQ(parse_dtype("float16"), DType::kF16);
  EXPECT_EQ(parse_dtype("BF16"), DType::kBF16);
  EXPECT_EQ(parse_dtype("fp32"), DType::kF32);
  EXPECT_EQ(parse_dtype("int3"), std::nullopt);
}

}  // namespace
}  // namespace kva
