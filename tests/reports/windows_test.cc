#include "reports/windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/error_of.h"

namespace kva {
namespace {

using testing::HasSubstr;

TEST(Windows, TwentyWindowsOfTwoThousandScoreTheirSecondHalves) {
  const auto windows = plan_windows(300000, {.tokens = 20480}, "text");
  ASSERT_EQ(windows.size(), 20u);
  for (std::size_t i = 0; i < windows.size(); ++i) {
    EXPECT_EQ(windows[i].first_token, static_cast<int64_t>(i) * 2048);
    EXPECT_EQ(windows[i].tokens, 2048);
    EXPECT_EQ(windows[i].first_scored, 1024);
    EXPECT_EQ(windows[i].scored, 1024);
  }
}

TEST(Windows, LastWindowStopsAtTheCap) {
  const auto windows = plan_windows(1000, {.context = 100, .tokens = 120, .chunk = 8}, "text");
  ASSERT_EQ(windows.size(), 3u);
  EXPECT_EQ(windows[2].scored, 20);
  EXPECT_EQ(windows[2].tokens, 70);
}

TEST(Windows, WithoutACapAllWholeWindowsCount) {
  EXPECT_EQ(plan_windows(399, {.context = 100, .chunk = 8}, "text").size(), 3u);
  EXPECT_EQ(plan_windows(399, {.context = 100, .tokens = 1000000, .chunk = 8}, "text").size(), 3u);
}

// By hand: what every step feeds, and that the predictions of all steps are those of the scored tokens.
TEST(Windows, StepsCoverTheWindowAndPredictEachScoredTokenOnce) {
  for (const int64_t context : {2, 3, 10, 63, 64, 65, 200})
    for (const int64_t chunk : {1, 2, 7, 32, 100})
      for (const int64_t turns : {1, 2, 3})
        for (const int64_t tokens : {0, 1, 5}) {
          const WindowOptions options{.context = context, .tokens = tokens, .chunk = chunk, .turns = turns};
          if (chunk > context / 2 || turns > context - context / 2) continue;
          for (const Window& window : plan_windows(3 * context, options, "text")) {
            int64_t fed = 0, predicted = 0;
            for (const WindowStep& step : window_steps(window, options)) {
              EXPECT_EQ(step.start, fed);
              EXPECT_GE(step.tokens, 1);
              EXPECT_LE(step.tokens, chunk);
              if (step.logits > 0) {
                EXPECT_EQ(step.start + step.first_logit + 1, window.first_scored + predicted);
                EXPECT_LE(step.first_logit + step.logits, step.tokens);
              }
              fed += step.tokens;
              predicted += step.logits;
            }
            EXPECT_EQ(fed, window.tokens);
            EXPECT_EQ(predicted, window.scored);
          }
        }
}

TEST(Windows, NoStepSpansTwoTurnsAndTheLastEndsNone) {
  const WindowOptions options{.context = 100, .tokens = 0, .chunk = 16, .turns = 2};
  std::vector<int64_t> ends;
  std::vector<std::pair<int64_t, int64_t>> prompts;
  for (const WindowStep& step : window_steps(plan_windows(100, options, "text")[0], options)) {
    if (step.ends_turn) ends.push_back(step.start + step.tokens);
    if (step.prompt_tokens > 0) prompts.emplace_back(step.start, step.prompt_tokens);
  }
  EXPECT_EQ(ends, (std::vector<int64_t>{50, 75}));
  EXPECT_EQ(prompts, (std::vector<std::pair<int64_t, int64_t>>{{0, 50}, {50, 25}}));
  EXPECT_EQ(turn_of(0, options), 0);
  EXPECT_EQ(turn_of(24, options), 0);
  EXPECT_EQ(turn_of(25, options), 1);
  EXPECT_EQ(turn_of(49, options), 1);
}

TEST(Windows, RefusesWhatCannotBe) {
  const auto refusal = [](int64_t text, const WindowOptions& options) {
    return error_of([&] { plan_windows(text, options, "book.txt"); });
  };
  EXPECT_THAT(refusal(2047, {}), HasSubstr("book.txt: expected at least the 2048 tokens of one window"));
  EXPECT_THAT(refusal(2047, {}), HasSubstr("found 2047"));
  EXPECT_THAT(refusal(100, {.context = 1}), HasSubstr("--context"));
  EXPECT_THAT(refusal(100, {.context = 10, .chunk = 6}), HasSubstr("--chunk: expected 1 to 5"));
  EXPECT_THAT(refusal(100, {.context = 10, .chunk = 0}), HasSubstr("--chunk"));
  EXPECT_THAT(refusal(100, {.context = 10, .chunk = 2, .turns = 6}), HasSubstr("--turns"));
  EXPECT_THAT(refusal(100, {.context = 10, .tokens = -1, .chunk = 2}), HasSubstr("--tokens"));
}

}  // namespace
}  // namespace kva
