// The expected numbers were computed with NumPy in f32 by the formulas of Hugging Face transformers
// (modeling_rope_utils.py: _compute_default/linear_scaling/llama3_parameters; apply_rotary_pos_emb).
#include "kernels/rope.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <vector>

#include "tests/kernels/simd_targets.h"

namespace kva {
namespace {

constexpr std::array<float, 8> kHead = {0.5f, -1.25f, 2.0f, 0.75f, -0.3f, 1.5f, 0.125f, -2.5f};

TEST(Rope, InverseFrequenciesAreHuggingFaces) {
  const Rope small(8, 8, 10000.0, {});
  const std::array<float, 4> expected = {1.0f, 0.10000000149011612f, 0.009999999776482582f,
                                         0.0010000000474974513f};
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(small.inverse_frequencies()[i], expected[i]);
  const Rope smollm(64, 64, 100000.0, {});
  EXPECT_FLOAT_EQ(smollm.inverse_frequencies()[1], 0.6978305578231812f);
  EXPECT_FLOAT_EQ(smollm.inverse_frequencies()[7], 0.08058422058820724f);
  EXPECT_FLOAT_EQ(smollm.inverse_frequencies()[31], 1.4330126759887207e-05f);
}

TEST(Rope, LinearScalingDividesFrequencies) {
  const Rope rope(8, 8, 10000.0, {.kind = RopeScaling::Kind::kLinear, .factor = 2.0});
  const std::array<float, 4> expected = {0.5f, 0.05000000074505806f, 0.004999999888241291f,
                                         0.0005000000237487257f};
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(rope.inverse_frequencies()[i], expected[i]);
}

TEST(Rope, Llama3ScalingKeepsShortSlowsLongAndBlendsBetween) {
  const Rope rope(128, 128, 500000.0,
                  {.kind = RopeScaling::Kind::kLlama3,
                   .factor = 8.0,
                   .low_freq_factor = 1.0,
                   .high_freq_factor = 4.0,
                   .original_max_positions = 8192});
  const auto frequency = rope.inverse_frequencies();
  EXPECT_FLOAT_EQ(frequency[1], 0.8146172165870667f);
  EXPECT_FLOAT_EQ(frequency[28], 0.0032114461064338684f);  // kept
  EXPECT_FLOAT_EQ(frequency[29], 0.0021665706299245358f);  // blended
  EXPECT_FLOAT_EQ(frequency[30], 0.0013718936825171113f);
  EXPECT_FLOAT_EQ(frequency[34], 0.0001785077911335975f);
  EXPECT_FLOAT_EQ(frequency[35], 9.556212899042293e-05f);  // divided by 8
  EXPECT_FLOAT_EQ(frequency[63], 3.068925877869333e-07f);
}

TEST(Rope, RotatesAsHuggingFaceUpToTheLargestPositions) {
  const Rope rope(8, 8, 10000.0, {});
  const struct {
    int64_t position;
    std::array<float, 8> expected;
  } cases[] = {
      {1,
       {0.5225924253463745f, -1.393505334854126f, 1.9986499547958374f, 0.7524996399879456f,
        0.25864478945732117f, 1.367714524269104f, 0.14499340951442719f, -2.499248743057251f}},
      {1000,
       {0.5292534232139587f, -0.3183501362800598f, -1.610140323638916f, 2.508903980255127f,
        0.2447260618209839f, 1.9264353513717651f, -1.1929261684417725f, -0.7196524739265442f}},
      {131071,
       {-0.5815642476081848f, -1.7135133743286133f, -1.4956022500991821f, -1.4400540590286255f,
        -0.042225778102874756f, 0.9361474514007568f, -1.3337162733078003f, -2.176865577697754f}},
  };
  for (const auto& c : cases) {
    auto head = kHead;
    rope.rotate(head.data(), c.position);
    for (std::size_t i = 0; i < 8; ++i) EXPECT_NEAR(head[i], c.expected[i], 4e-7f) << c.position << " " << i;
    rope.rotate(head.data(), -c.position);
    for (std::size_t i = 0; i < 8; ++i) EXPECT_NEAR(head[i], kHead[i], 4e-7f);
  }
}

TEST(Rope, LeavesElementsBeyondTheRotaryPartAlone) {
  const Rope rope(8, 4, 10000.0, {});
  auto head = kHead;
  rope.rotate(head.data(), 3);
  EXPECT_NE(head[0], kHead[0]);
  EXPECT_NE(head[3], kHead[3]);
  for (std::size_t i = 4; i < 8; ++i) EXPECT_EQ(head[i], kHead[i]);
}

TEST(Rope, RowsOfManyHeadsAgreeWithSingleHeadsOnEveryTarget) {
  for_each_simd_target([] {
    for (const int dim : {2, 20, 64, 80}) {
      const Rope rope(dim, dim, 10000.0, {});
      const int64_t heads = 3;
      const std::vector<int64_t> positions = {5, 5, 0, 700};
      std::vector<float> values(static_cast<std::size_t>(4 * heads * dim));
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i));
      std::vector<float> rows = values;
      rope.rotate_rows(MatView<float>(rows.data(), 4, heads * dim), positions);
      for (int64_t r = 0; r < 4; ++r) {
        for (int64_t h = 0; h < heads; ++h) {
          const std::size_t at = static_cast<std::size_t>((r * heads + h) * dim);
          for (int i = 0; i < dim / 2; ++i) {
            const std::size_t a = at + static_cast<std::size_t>(i);
            const std::size_t b = a + static_cast<std::size_t>(dim / 2);
            const double angle = static_cast<float>(positions[static_cast<std::size_t>(r)]) *
                                 rope.inverse_frequencies()[static_cast<std::size_t>(i)];
            EXPECT_NEAR(rows[a], values[a] * std::cos(angle) - values[b] * std::sin(angle), 1e-6);
            EXPECT_NEAR(rows[b], values[b] * std::cos(angle) + values[a] * std::sin(angle), 1e-6);
          }
        }
      }
    }
  });
}

TEST(Rope, StoredFrequenciesGiveTheSameRotation) {
  const Rope rope(64, 64, 500000.0, {.kind = RopeScaling::Kind::kLinear, .factor = 4.0});
  const Rope again(64,
                   std::vector<float>(rope.inverse_frequencies().begin(), rope.inverse_frequencies().end()));
  EXPECT_EQ(again.rotary_dim(), 64);
  std::vector<float> a(64, 1.25f), b(64, 1.25f);
  rope.rotate(a.data(), 1234);
  again.rotate(b.data(), 1234);
  EXPECT_EQ(a, b);
}

}  // namespace
}  // namespace kva
