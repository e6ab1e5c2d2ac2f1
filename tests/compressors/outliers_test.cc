#include "compressors/codecs/outliers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/compressors/random_sample.h"

namespace kva {
namespace {

TEST(Outliers, CountAndBytesAreExact) {
  EXPECT_EQ(outlier_count(0.01, 4096), 41);
  EXPECT_EQ(outlier_count(0.0, 4096), 0);
  EXPECT_EQ(outlier_count(0.01, 0), 0);
  EXPECT_EQ(outlier_count(1.0, 7), 7);
  EXPECT_EQ(outlier_bytes(41, 4096), 62 + 41 * 2);  // 41 places of 12 bits, to an even byte
  EXPECT_EQ(outlier_bytes(41, 65536), 41 * 4);
  EXPECT_EQ(outlier_bytes(41, 65537), 88 + 41 * 2);
  EXPECT_EQ(outlier_bytes(0, 0), 0);
}

// Tokens (0, 0, 4, 8) and (10, 10, 10, 14): means 3 and 11, deviations 3.317 and 1.732. Over the roots of
// those the distances are 1.65 1.65 0.55 2.75 and 0.76 0.76 0.76 2.28.
TEST(Outliers, AreFarthestFromTheirTokensMean) {
  const std::vector<float> rows = {0, 0, 4, 8, 10, 10, 10, 14};
  const MatView<const float> view(rows.data(), 2, 4);
  const auto of = [&](int64_t count) { return farthest_numbers(view, ScaleAxis::kToken, 4, count); };
  EXPECT_EQ(of(0), (std::vector<int64_t>{}));
  EXPECT_EQ(of(1), (std::vector<int64_t>{3}));
  EXPECT_EQ(of(2), (std::vector<int64_t>{3, 7}));
  EXPECT_EQ(of(3), (std::vector<int64_t>{0, 3, 7}));
  EXPECT_EQ(of(5), (std::vector<int64_t>{0, 1, 3, 4, 7}));
  EXPECT_EQ(of(8), (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  // Without 8 the first token is (0, 0, 4): 2.67 over the root of 1.886. What is kept comes last.
  const std::vector<uint8_t> kept = {0, 0, 0, 1, 0, 0, 0, 0};
  EXPECT_EQ(farthest_numbers(view, ScaleAxis::kToken, 4, 2, kept.data()), (std::vector<int64_t>{2, 7}));
  EXPECT_EQ(farthest_numbers(view, ScaleAxis::kToken, 4, 7, kept.data()),
            (std::vector<int64_t>{0, 1, 2, 4, 5, 6, 7}));
}

TEST(Outliers, GroupsEndWithTheTokenAndThePage) {
  // Channel 1 has one number that stands out among the first two tokens; the third is a group of its own.
  const std::vector<float> rows = {0, 0, 0, 9, 0, 50};
  const MatView<const float> view(rows.data(), 3, 2);
  EXPECT_EQ(farthest_numbers(view, ScaleAxis::kChannel, 2, 2), (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(farthest_numbers(view, ScaleAxis::kChannel, 3, 1), (std::vector<int64_t>{5}));
  EXPECT_EQ(farthest_numbers(view, ScaleAxis::kToken, 1, 2), (std::vector<int64_t>{0, 1}));
}

TEST(Outliers, ComeBackToF16WhereverTheyStood) {
  for (const auto& [tokens, width] : {std::pair<int64_t, int64_t>{8, 20}, {600, 128}}) {
    const auto rows = normal_numbers(tokens * width, 3);
    const MatView<const float> view(rows.data(), tokens, width);
    const int64_t count = outlier_count(0.02, tokens * width);
    const auto places = farthest_numbers(view, ScaleAxis::kChannel, tokens, count);
    ASSERT_EQ(static_cast<int64_t>(places.size()), count);
    EXPECT_TRUE(std::is_sorted(places.begin(), places.end()));
    std::vector<std::byte> list(static_cast<std::size_t>(outlier_bytes(count, tokens * width)));
    write_outliers(view, places, list.data());
    std::vector<float> back(rows.size(), 77.0f);
    restore_outliers(list.data(), count, MatView<float>(back.data(), tokens, width));
    auto next = places.begin();
    for (std::size_t i = 0; i < back.size(); ++i) {
      const bool is_outlier = next != places.end() && *next == static_cast<int64_t>(i);
      if (is_outlier) ++next;
      ASSERT_EQ(back[i], is_outlier ? f32_from_f16(f16_from_f32(rows[i])) : 77.0f);
    }
  }
}

}  // namespace
}  // namespace kva
