#include "reports/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "tests/error_of.h"
#include "tests/runtime/model/decoding.h"

namespace kva {
namespace {

std::vector<int32_t> ids_of(int64_t tokens) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < tokens; ++i) ids.push_back(static_cast<int32_t>((i * i + 5 * i) % 96));
  return ids;
}

// A query spends a weight of 1; so the tokens of a sequence without an open page got one for each.
TEST(Calibration, ComesWithTheAttentionOfEveryToken) {
  ThreadPool pool(2);
  Decoder decoder = Decoder::load(KVA_FIXTURES "/models/llama-f16", {.weights = DType::kF32}, pool);
  Progress progress(Progress::Mode::kQuiet);
  Calibration calibration(decoder, ids_of(16 + 24), 24, 8, pool, progress);
  for (const KeyBasis basis : {KeyBasis::kRotated, KeyBasis::kPlain}) {
    const PageSet& sample = calibration.pages(basis);
    ASSERT_EQ(sample.page_count(), 5);
    ASSERT_EQ(sample.attention_mass.size(), static_cast<std::size_t>(sample.layers));
    for (const float* of_layer : sample.attention_mass)
      for (int head = 0; head < sample.kv_heads; ++head) {
        std::vector<float> mass;
        for (int64_t page = 0; page < 5; ++page)
          mass.insert(mass.end(), of_layer + (page * sample.kv_heads + head) * 8,
                      of_layer + (page * sample.kv_heads + head + 1) * 8);
        EXPECT_NEAR(std::accumulate(mass.begin(), mass.begin() + 24, 0.0), 24.0, 1e-3);
        EXPECT_NEAR(std::accumulate(mass.begin() + 24, mass.end(), 0.0), 16.0, 1e-3);
        // Only the last query reads the last token.
        EXPECT_LT(mass[23], 1.0f);
        EXPECT_GE(*std::min_element(mass.begin(), mass.end()), 0.0f);
      }
  }
  // Kept, not decoded again.
  EXPECT_EQ(&calibration.pages(KeyBasis::kRotated), &calibration.pages(KeyBasis::kRotated));
}

TEST(Calibration, RefusesATextWithoutAPage) {
  ThreadPool pool(1);
  Decoder decoder = Decoder::load(KVA_FIXTURES "/models/llama-f16", {.weights = DType::kF32}, pool);
  Progress progress(Progress::Mode::kQuiet);
  Calibration calibration(decoder, ids_of(7), 24, 8, pool, progress);
  EXPECT_THAT(error_of([&] { (void)calibration.pages(KeyBasis::kRotated); }),
              testing::AllOf(testing::HasSubstr("--calibration"), testing::HasSubstr("found 7")));
}

TEST(Calibration, MeasuresWhatEachPartIsWorthWhereAskedTo) {
  ThreadPool pool(2);
  Decoder decoder = Decoder::load(KVA_FIXTURES "/models/llama-f16", {.weights = DType::kF32}, pool);
  Progress progress(Progress::Mode::kQuiet);
  Calibration calibration(decoder, ids_of(80), 40, 8, pool, progress);
  EXPECT_TRUE(calibration.pages(KeyBasis::kRotated).part_losses.empty());
  const PageSet& sample = calibration.pages_with_losses(KeyBasis::kRotated);
  ASSERT_EQ(sample.part_losses.size(), 2u * static_cast<std::size_t>(sample.layers));
  EXPECT_THAT(sample.part_losses, testing::Each(testing::Gt(1e-9)));
  EXPECT_EQ(&calibration.pages(KeyBasis::kRotated), &sample);
  // Its scored half has no full page before it.
  Calibration short_one(decoder, ids_of(14), 40, 8, pool, progress);
  EXPECT_TRUE(short_one.pages_with_losses(KeyBasis::kRotated).part_losses.empty());
}

}  // namespace
}  // namespace kva
