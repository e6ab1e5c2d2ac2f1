#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/convert.h"
#include "kernels/dense_rows.h"
#include "tests/kernels/simd_targets.h"

namespace kva {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> normal_values(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// Owns what a PartialState views.
struct StateRows {
  StateRows(int64_t rows, int64_t dim)
      : values(static_cast<std::size_t>(rows * dim)),
        max(static_cast<std::size_t>(rows)),
        sum(static_cast<std::size_t>(rows)),
        view{MatView<float>(values.data(), rows, dim), max.data(), sum.data()} {
    clear(view);
  }
  std::vector<float> values, max, sum;
  PartialState view;
};

// One row's attention over keys [first, last) by way of a fresh state; values[t] is one number.
StateRows attend_to(const std::vector<float>& scores, const std::vector<float>& values, std::size_t first,
                    std::size_t last) {
  StateRows state(1, 1);
  std::vector<float> weights(scores.begin() + static_cast<std::ptrdiff_t>(first),
                             scores.begin() + static_cast<std::ptrdiff_t>(last));
  softmax_update(MatView<float>(weights.data(), 1, static_cast<int64_t>(weights.size())), state.view);
  for (std::size_t t = first; t < last; ++t) state.values[0] += weights[t - first] * values[t];
  return state;
}

float result_of(const StateRows& state) {
  float out = 0.0f;
  finish(state.view, MatView<float>(&out, 1, 1));
  return out;
}

TEST(PartialState, AnyCutMergesToTheSoftmaxInDouble) {
  const std::vector<float> values = normal_values(71, 1);
  std::vector<float> scores = normal_values(71, 2);
  for (float& score : scores) score *= 12.0f;
  double sum = 0.0, expected = 0.0;
  for (std::size_t t = 0; t < 71; ++t) {
    sum += std::exp(double{scores[t]});
    expected += std::exp(double{scores[t]}) * values[t];
  }
  expected /= sum;
  for_each_simd_target([&] {
    for (std::size_t cut = 0; cut <= 71; ++cut) {
      StateRows left = attend_to(scores, values, 0, cut);
      merge(left.view, attend_to(scores, values, cut, 71).view);
      EXPECT_NEAR(result_of(left), expected, 2e-6) << cut;
    }
  });
}

TEST(PartialState, EmptyStatesAndMaskedKeysAddNothing) {
  for_each_simd_target([] {
    StateRows empty(1, 1), also_empty(1, 1);
    merge(empty.view, also_empty.view);
    EXPECT_EQ(empty.max[0], -kInfinity);
    EXPECT_EQ(result_of(empty), 0.0f);

    const std::vector<float> masked(20, -kInfinity), ones(20, 1.0f);
    StateRows all_masked = attend_to(masked, ones, 0, 20);
    EXPECT_EQ(all_masked.max[0], -kInfinity);
    EXPECT_EQ(all_masked.sum[0], 0.0f);
    EXPECT_EQ(result_of(all_masked), 0.0f);

    StateRows some = attend_to({1.0f, -kInfinity, 1.0f}, {2.0f, 100.0f, 4.0f}, 0, 3);
    merge(some.view, all_masked.view);
    EXPECT_FLOAT_EQ(result_of(some), 3.0f);
  });
}

TEST(PartialState, LaterUpdatesRescaleEarlierOnes) {
  StateRows state(1, 1);
  std::vector<float> first = {0.0f}, second = {200.0f}, third = {200.0f};
  softmax_update(MatView<float>(first.data(), 1, 1), state.view);
  state.values[0] += first[0] * 7.0f;
  softmax_update(MatView<float>(second.data(), 1, 1), state.view);
  state.values[0] += second[0] * 3.0f;
  softmax_update(MatView<float>(third.data(), 1, 1), state.view);
  state.values[0] += third[0] * 5.0f;
  EXPECT_FLOAT_EQ(state.max[0], 200.0f);
  EXPECT_FLOAT_EQ(state.sum[0], 2.0f);
  EXPECT_FLOAT_EQ(result_of(state), 4.0f);
}

TEST(PartialState, NanAndInfinityShow) {
  for_each_simd_target([] {
    for (const std::size_t count : {3u, 40u}) {
      for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInfinity}) {
        std::vector<float> scores(count, 1.0f);
        scores[1] = bad;
        EXPECT_TRUE(std::isnan(result_of(attend_to(scores, std::vector<float>(count, 1.0f), 0, count))));
      }
    }
  });
}

TEST(AddAttention, SumsSoftmaxWeightsOverRows) {
  constexpr int64_t kRows = 5, kKeys = 71;
  std::vector<float> scores = normal_values(kRows * kKeys, 3);
  for (float& score : scores) score *= 6.0f;
  scores[2 * kKeys + 70] = -kInfinity;
  std::vector<float> max(kRows), sum(kRows);
  std::vector<double> expected(kKeys, 0.5);
  for (int64_t r = 0; r < kRows; ++r) {
    const float* row = scores.data() + r * kKeys;
    double total = 0.0;
    max[static_cast<std::size_t>(r)] = *std::max_element(row, row + kKeys);
    for (int64_t t = 0; t < kKeys; ++t) total += std::exp(double{row[t]});
    sum[static_cast<std::size_t>(r)] =
        static_cast<float>(total / std::exp(double{max[static_cast<std::size_t>(r)]}));
    if (r == 3) sum[static_cast<std::size_t>(r)] = 0.0f;  // an empty state
    for (int64_t t = 0; t < kKeys && r != 3; ++t)
      expected[static_cast<std::size_t>(t)] += std::exp(double{row[t]}) / total;
  }
  for_each_simd_target([&] {
    for (int64_t keys : {int64_t{1}, int64_t{16}, kKeys}) {
      std::vector<float> totals(kKeys, 0.5f);
      add_attention(MatView<const float>(scores.data(), kRows, keys, kKeys), max.data(), sum.data(),
                    totals.data());
      for (std::size_t t = 0; t < kKeys; ++t)
        EXPECT_NEAR(totals[t], t < static_cast<std::size_t>(keys) ? expected[t] : 0.5, 2e-6) << t;
    }
  });
}

// The standard bound on the error of a sum of `terms` products in f32, in any order (Higham, section 3.1).
double sum_bound(int64_t terms, double sum_of_sizes) {
  return static_cast<double>(terms + 1) * 0x1p-24 * sum_of_sizes;
}

class DenseRows : public testing::TestWithParam<DType> {};

TEST_P(DenseRows, ScoresAndSumsAgreeWithDouble) {
  const DType type = GetParam();
  for_each_simd_target([&] {
    for (const int64_t dim : {1, 6, 8, 20, 64, 80, 128}) {
      for (const int64_t tokens : {1, 3, 4, 16, 17}) {
        for (const int64_t rows : {1, 2, 3, 4, 9}) {
          const auto queries = normal_values(rows * dim, 3);
          const auto weights = normal_values(rows * tokens, 4);
          auto stored = normal_values(tokens * dim, 5);
          std::vector<std::byte> payload(static_cast<std::size_t>(tokens * dim * dtype_bytes(type)));
          from_f32(stored.data(), type, payload.data(), tokens * dim);
          to_f32(payload.data(), type, stored.data(), tokens * dim);

          std::vector<float> scores(static_cast<std::size_t>(rows * (tokens + 1)), -9.0f);
          dense_scores(MatView<const float>(queries.data(), rows, dim), payload.data(), type,
                       MatView<float>(scores.data(), rows, tokens, tokens + 1));
          std::vector<float> out(static_cast<std::size_t>(rows * dim), 0.5f);
          dense_accumulate(MatView<const float>(weights.data(), rows, tokens), payload.data(), type,
                           MatView<float>(out.data(), rows, dim));

          const auto at = [](const std::vector<float>& v, int64_t i) {
            return v[static_cast<std::size_t>(i)];
          };
          for (int64_t q = 0; q < rows; ++q) {
            EXPECT_EQ(at(scores, q * (tokens + 1) + tokens), -9.0f) << "wrote past the last token";
            for (int64_t t = 0; t < tokens; ++t) {
              double dot = 0.0, size = 0.0;
              for (int64_t c = 0; c < dim; ++c) {
                const double product = double{at(queries, q * dim + c)} * at(stored, t * dim + c);
                dot += product;
                size += std::abs(product);
              }
              ASSERT_NEAR(at(scores, q * (tokens + 1) + t), dot, sum_bound(dim, size))
                  << dim << " " << tokens << " " << rows;
            }
            for (int64_t c = 0; c < dim; ++c) {
              double sum = 0.5, size = 0.5;
              for (int64_t t = 0; t < tokens; ++t) {
                const double product = double{at(weights, q * tokens + t)} * at(stored, t * dim + c);
                sum += product;
                size += std::abs(product);
              }
              ASSERT_NEAR(at(out, q * dim + c), sum, sum_bound(tokens, size))
                  << dim << " " << tokens << " " << rows;
            }
          }
        }
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Types, DenseRows, testing::Values(DType::kF32, DType::kF16, DType::kBF16),
                         [](const auto& tested) { return std::string(dtype_name(tested.param)); });

}  // namespace
}  // namespace kva
