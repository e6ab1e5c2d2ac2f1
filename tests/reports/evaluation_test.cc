#include "reports/evaluation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "reports/decode_timing.h"
#include "tests/error_of.h"
#include "tests/reports/evaluation_session.h"
#include "tests/runtime/model/decoding.h"

namespace kva {
namespace {

using testing::HasSubstr;

TEST(Evaluation, BaseAgainstItselfIsExactlyNothing) {
  Session run(2);
  const Evaluation result = run.evaluate({"dense(f32)", "dense(f16)"});
  ASSERT_EQ(result.candidates.size(), 2u);
  ASSERT_EQ(result.candidates[0].scores.tokens.size(), 50u);
  for (const TokenScore& score : result.candidates[0].scores.tokens) {
    EXPECT_EQ(score.kl, 0.0);
    EXPECT_EQ(score.nll, score.nll_base);
    EXPECT_TRUE(score.same_top);
  }
  // Twice the bytes of the baseline, and other logits.
  EXPECT_TRUE(result.candidates[0].bytes_differ);
  EXPECT_TRUE(result.candidates[0].logits_differ);
  EXPECT_FALSE(result.candidates[1].bytes_differ);
  EXPECT_FALSE(result.candidates[1].logits_differ);
}

TEST(Evaluation, RoundedPagesDivergeALittleAndRechunkingLess) {
  Session run(2);
  const Evaluation result = run.evaluate({"dense(bf16)"});
  const auto mean_kl = [](const Candidate& candidate) {
    double sum = 0;
    for (const TokenScore& score : candidate.scores.tokens) sum += score.kl;
    return sum / static_cast<double>(candidate.scores.tokens.size());
  };
  EXPECT_GT(mean_kl(result.baseline), 0.0);
  EXPECT_LT(mean_kl(result.baseline), 1e-4);
  EXPECT_GT(mean_kl(result.candidates[0]), mean_kl(result.baseline));
  EXPECT_LT(std::abs(mean_kl(result.rechunked)), mean_kl(result.baseline));
  EXPECT_EQ(result.rechunked.scores.tokens.size(), 50u);
  EXPECT_EQ(result.rechunked.chunk_tokens, 16);
}

// The losses against logits computed apart, each window in one step on an f32 cache.
TEST(Evaluation, LossesAreThoseOfTheWindowsTokens) {
  Session run(1);
  const Evaluation result = run.evaluate({"dense(f32)"});
  const int64_t vocab = run.decoder.config().vocab;
  std::size_t next = 0;
  for (const Window& window : run.windows) {
    KvCache cache(run.decoder.cache_options(16, DType::kF32, KeyBasis::kRotated), run.pool);
    const auto ids = std::span(run.ids).subspan(static_cast<std::size_t>(window.first_token), 40);
    const std::vector<float> logits = run_alone(run.decoder, cache, ids, {40});
    for (int64_t t = 20; t < 20 + window.scored; ++t, ++next) {
      const float* row = logits.data() + (t - 1) * vocab;
      double sum = 0;
      for (int64_t v = 0; v < vocab; ++v) sum += std::exp(double{row[v]});
      const double expected = std::log(sum) - double{row[ids[static_cast<std::size_t>(t)]]};
      EXPECT_NEAR(result.candidates[0].scores.tokens[next].nll, expected, 1e-4);
    }
  }
  EXPECT_EQ(next, result.candidates[0].scores.tokens.size());
}

TEST(Evaluation, SameBitsAtAnyThreadCount) {
  Session one(1), three(3);
  const Evaluation a = one.evaluate({"dense(bf16)"});
  const Evaluation b = three.evaluate({"dense(bf16)"});
  ASSERT_EQ(a.candidates[0].scores.tokens.size(), b.candidates[0].scores.tokens.size());
  for (std::size_t i = 0; i < a.candidates[0].scores.tokens.size(); ++i) {
    EXPECT_EQ(a.candidates[0].scores.tokens[i].nll, b.candidates[0].scores.tokens[i].nll);
    EXPECT_EQ(a.candidates[0].scores.tokens[i].kl, b.candidates[0].scores.tokens[i].kl);
  }
}

TEST(Evaluation, BytesAreThoseAtTheLastScoredToken) {
  Session run(2);
  const Evaluation result = run.evaluate({"dense(f32)"});
  const ModelConfig& config = run.decoder.config();
  ASSERT_EQ(result.baseline.windows.size(), 3u);
  EXPECT_EQ(result.baseline.windows[0].tokens, 40);
  EXPECT_EQ(result.baseline.windows[2].tokens, 30);
  EXPECT_EQ(result.baseline.windows[0].ledger.payload,
            40 * config.kv_bytes_per_token(DType::kF16, DType::kF16));
  EXPECT_EQ(result.candidates[0].windows[1].ledger.payload,
            40 * config.kv_bytes_per_token(DType::kF32, DType::kF32));
  // After every step: 8 + 16 + 20 + 28 + 36 + 40 tokens a whole window, 8 + 16 + 20 + 28 + 30 the last.
  EXPECT_EQ(result.baseline.tokens_over_time, 2 * 148 + 102);
}

TEST(Evaluation, RefusesAContextBeyondTheModel) {
  Session run(1);
  const int64_t positions = run.decoder.config().usable_positions();
  run.options.context = positions + 2;
  EXPECT_THAT(error_of([&] { run.evaluate({}); }), HasSubstr("--context: expected at most"));
}

TEST(Evaluation, RefusesLayersThatTheModelDoesNotHave) {
  Session run(1);
  EXPECT_THAT(error_of([&] { run.evaluate({"layers(7): dense(f32)"}); }), HasSubstr("7"));
}

// Layer 1 reads layer 0's pages: fewer bytes, other logits. @prefill acts on what the prompt filled, once.
TEST(Evaluation, SharedLayersHoldLessAndPrefillTriggersWaitForTheirTurn) {
  Session run(2);
  const Evaluation result =
      run.evaluate({"layershare(start=0,every=2)", "layershare(start=0,every=2)@prefill"});
  const ByteLedger dense = result.baseline.windows[0].ledger;
  const ByteLedger sealed = result.candidates[0].windows[0].ledger;
  const ByteLedger prefill = result.candidates[1].windows[0].ledger;
  EXPECT_EQ(sealed.payload * 2, dense.payload);
  // 40 tokens in pages of 8; the prompt of 20 fills two.
  EXPECT_EQ(prefill.payload, dense.payload - dense.payload / 5);
  EXPECT_TRUE(result.candidates[0].logits_differ);
  EXPECT_TRUE(result.candidates[0].bytes_differ);
  EXPECT_GT(result.candidates[0].stats.plans, 0);
  EXPECT_EQ(result.candidates[0].stats.freed_bytes, result.candidates[0].stats.predicted_bytes);
  const auto& layers = result.candidates[0].windows[0].layers;
  ASSERT_EQ(layers.size(), 2u);
  EXPECT_EQ(layers[0] + layers[1], static_cast<double>(sealed.payload + sealed.scales));
}

TEST(DecodeTiming, MeasuresEachRecipeAtTheContext) {
  Session run(2);
  const auto timings = time_decoding(run.ids, Session::recipes({"dense(f16)", "dense(f32)"}),
                                     {.context = 40, .decode_tokens = 6, .chunk_tokens = 16, .runs = 3},
                                     run.setup(), run.progress);
  ASSERT_EQ(timings.size(), 2u);
  for (const DecodeTiming& timing : timings) {
    EXPECT_EQ(timing.runs, 3);
    EXPECT_EQ(timing.decode_tokens, 6);
    EXPECT_GT(timing.prefill_tokens_per_s, 0);
    EXPECT_GT(timing.decode_tokens_per_s, 0);
    EXPECT_GT(timing.first_token_ms, 0);
    EXPECT_GE(timing.step_p99_ms, timing.step_median_ms);
  }
  EXPECT_GT(peak_process_bytes(), 1 << 20);
}

}  // namespace
}  // namespace kva
