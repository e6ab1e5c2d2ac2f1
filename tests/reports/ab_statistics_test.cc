#include "reports/ab_statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "reports/ab_compare.h"
#include "tests/error_of.h"

namespace kva {
namespace {

using testing::HasSubstr;

Candidate candidate(const std::string& recipe, double kl, int64_t payload) {
  Candidate row;
  row.recipe = recipe;
  for (int window = 0; window < 2; ++window) {
    row.scores.begin_window();
    for (int i = 0; i < 512; ++i) {
      TokenScore score;
      score.nll_base = 2.0 + 0.5 * std::sin(i);
      score.kl = kl * (1.0 + 0.3 * std::sin(7 * i));
      score.nll = score.nll_base + score.kl;
      score.same_top = i % 10 != 0;
      row.scores.append({&score, 1});
    }
    WindowBytes bytes{.tokens = 1024, .ledger = {}, .layers = {1.0, 3.0}};
    bytes.ledger.payload = payload;
    row.windows.push_back(bytes);
  }
  return row;
}

TEST(AbStatistics, BytesAreMeansOfWindowsRunToTheirEnd) {
  Candidate row = candidate("dense(f16)", 0.1, 1000);
  row.windows[1].ledger.payload = 1003;
  row.windows[1].ledger.scales = 4;
  row.windows[1].layers = {2.0, 5.0};
  row.windows.push_back({.tokens = 700, .ledger = {.payload = 5}, .layers = {9.0, 9.0}});
  const RowBytes bytes = row_bytes(row);
  EXPECT_EQ(bytes.tokens, 1024);
  EXPECT_EQ(bytes.windows, 2);
  EXPECT_EQ(bytes.ledger.payload, 1002);  // 1001.5
  EXPECT_EQ(bytes.ledger.scales, 2);
  EXPECT_EQ(bytes.ledger.held(), 1004);
  EXPECT_EQ(bytes.layers, (std::vector<double>{1.5, 4.0}));
}

TEST(AbStatistics, CurvesMeetRowsOfOtherFamiliesAtEqualBytes) {
  Evaluation evaluation;
  evaluation.baseline = candidate("dense(f16)", 1e-7, 4000);
  evaluation.rechunked = candidate("dense(f32)", 1e-9, 8000);
  evaluation.candidates = {candidate("quant(bits=2)", 0.16, 1000), candidate("quant(bits=4)", 0.01, 2000),
                           candidate("lowrank(rank=0.5)", 0.1, 1500)};
  const AbStatistics statistics = ab_statistics(evaluation, {.context = 1024}, {.seed = 1});
  ASSERT_EQ(statistics.equal_bytes.size(), 1u);
  const EqualBytesRow& row = statistics.equal_bytes[0];
  EXPECT_EQ(row.row, 3u);
  EXPECT_EQ(row.curve, "quant(bits=#)");
  EXPECT_EQ(row.points, 2);
  // Half way in ln KL between 0.16 and 0.01 is 0.04.
  EXPECT_NEAR(row.kl_mean.value, 0.06, 2e-3);
  EXPECT_GT(row.kl_mean.low, 0.0);
  EXPECT_EQ(statistics.differences.size(), 6u);
  EXPECT_EQ(statistics.front, (std::vector<std::size_t>{1, 3, 2, 0}));
  EXPECT_TRUE(statistics.turns[0].empty());
}

TEST(AbStatistics, PointsThatTheirOwnFamilyBeatsAreNotOnItsCurve) {
  Evaluation evaluation;
  evaluation.baseline = candidate("dense(f16)", 1e-7, 4000);
  evaluation.rechunked = candidate("dense(f32)", 1e-9, 8000);
  // More bytes than two bits, and worse.
  evaluation.candidates = {candidate("quant(bits=2)", 0.16, 1000), candidate("quant(bits=4)", 0.01, 2000),
                           candidate("quant(k=2,v=8)", 0.5, 1490), candidate("lowrank(rank=0.5)", 0.1, 1500)};
  const AbStatistics statistics = ab_statistics(evaluation, {.context = 1024}, {.seed = 1});
  ASSERT_EQ(statistics.equal_bytes.size(), 1u);
  EXPECT_EQ(statistics.equal_bytes[0].points, 2);
  EXPECT_NEAR(statistics.equal_bytes[0].kl_mean.value, 0.06, 2e-3);
}

TEST(AbStatistics, MergingMeetsItsEvictionBase) {
  Evaluation evaluation;
  evaluation.baseline = candidate("dense(f16)", 1e-7, 4000);
  evaluation.rechunked = candidate("dense(f32)", 1e-9, 8000);
  evaluation.candidates = {candidate("merge(keep=0.5)", 0.1, 2000), candidate("evict(keep=0.25)", 0.3, 1000),
                           candidate("evict(keep=0.5)", 0.15, 2000),
                           candidate("merge(keep=0.125)", 0.6, 500)};
  const AbStatistics statistics = ab_statistics(evaluation, {.context = 1024}, {.seed = 1});
  ASSERT_EQ(statistics.against_bases.size(), 1u);
  EXPECT_EQ(statistics.against_bases[0].a, 1u);
  EXPECT_EQ(statistics.against_bases[0].b, 3u);
  EXPECT_NEAR(statistics.against_bases[0].quality.kl_mean.value, -0.05, 1e-3);
  EXPECT_LT(statistics.against_bases[0].quality.kl_mean.high, 0.0);
}

TEST(AbStatistics, TurnsShareOutTheTokens) {
  Evaluation evaluation;
  evaluation.baseline = candidate("dense(f16)", 1e-7, 4000);
  evaluation.rechunked = candidate("dense(f32)", 1e-9, 8000);
  const AbStatistics statistics = ab_statistics(evaluation, {.context = 1024, .turns = 3}, {.seed = 1});
  ASSERT_EQ(statistics.turns[0].size(), 3u);
  EXPECT_EQ(statistics.turns[0][0].tokens, 2 * 171);
  EXPECT_EQ(statistics.turns[0][2].tokens, 2 * 170);
  EXPECT_EQ(statistics.turns[0][1].windows, 2);
}

TEST(Limits, ParseWhatConditionsAreAndRefuseTheRest) {
  const Limit limit = parse_limit("delta.top1_agreement<-0.01");
  EXPECT_EQ(limit.field, "top1_agreement");
  EXPECT_TRUE(limit.delta);
  EXPECT_FALSE(limit.above);
  EXPECT_EQ(limit.value, -0.01);
  for (const char* text :
       {"", "kl_mean", "kl_mean>", ">1", "delta.>1", "kl_mean>1x", "kl_mean>inf", "kl_mean=1"})
    EXPECT_THAT(error_of([&] { parse_limit(text); }), HasSubstr("--fail-if")) << text;
}

}  // namespace
}  // namespace kva
