#include "reports/trial_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "runtime/io/file.h"
#include "tests/error_of.h"

namespace kva {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr const char* kLeast =
    R"j({"trial":"a","model":{"name":"m"},"strategy":"H2O(keep=0.5)","prompt_set":"general","sample":"0","status":"ok")j";

std::string row(const std::string& members) {
  return std::string(kLeast) + (members.empty() ? "" : ",") + members + "}";
}

class TrialRowsTest : public testing::Test {
 protected:
  TrialRowsTest() : folder_(fs::temp_directory_path() / ("kva-trials-" + std::to_string(::getpid()))) {
    fs::create_directories(folder_);
  }
  ~TrialRowsTest() override { fs::remove_all(folder_); }

  TrialRows load(const std::string& text) {
    write_text_file((folder_ / kTrialFile).string(), text);
    return load_trials(folder_);
  }
  TrialRow one(const std::string& members) { return load(row(members) + "\n").rows.at(0); }
  std::string refusal(const std::string& text) {
    return error_of([&] { load(text); });
  }

  fs::path folder_;
};

TEST_F(TrialRowsTest, ReadsATrial) {
  const TrialRow found = one(
      R"j("recipe":"h2o(keep=0.5)@seal","context_length":null,"repeat":2,"turns":[{"prompt":"p","text":"t","tokens":3}],)j"
      R"("timing":{"prefill_s":2,"generation_s":3,"token_s":[1,1.5,0.5]},"generated_tokens":3,)"
      R"("steps":{"tokens":[64,100,101,102],"cache_tokens":[32,50,51,51],"bytes":[10,20,30,40]},)"
      R"("layers":{"bytes":[5,null],"tokens":[1,2]},"ledger":{"payload":1,"scales":2,"side":3,"tables":4,"slack":5,"peak":20},)"
      R"("quality":{"perplexity":11,"perplexity_base":10,"kl_mean":0.1,"top1_agreement":0.9,"rouge_l":null},)"
      R"("counters":{"h2o.dropped":7,"h2o.who":"me"},"remarks":["a\nb"],"from_the_future":[{}])");
  EXPECT_EQ(found.line, 1);
  EXPECT_TRUE(found.ok);
  EXPECT_FALSE(found.is_baseline());
  EXPECT_TRUE(std::isnan(found.context_length));
  EXPECT_EQ(found.turns.at(0).text, "t");
  EXPECT_EQ(found.ledger.held(), 15);
  EXPECT_EQ(found.token_time(), 1.0);
  EXPECT_EQ(found.timing.token_median_s, 1.0);
  EXPECT_THAT(found.timing.token_at, ElementsAre(1, 2, 3));
  // Chunks of 64 and 36 share the prefill, steps of one token take the last two times.
  EXPECT_THAT(found.steps.elapsed_s, ElementsAre(1.28, 2.0, 3.5, 4.0));
  EXPECT_TRUE(std::isnan(found.layer_bytes.at(1)));
  EXPECT_TRUE(std::isnan(found.quality.rouge_l));
  ASSERT_EQ(found.counters.size(), 1U);
  EXPECT_EQ(found.counters[0].second, 7);
  EXPECT_THAT(found.remarks, ElementsAre("a b"));
}

TEST_F(TrialRowsTest, WhatIsNotThereIsUnknown) {
  const TrialRow found = one("");
  EXPECT_TRUE(std::isnan(found.ledger.held()) && std::isnan(found.token_time()));
  EXPECT_TRUE(found.steps.tokens.empty() && found.timing.token_s.empty() && found.turns.empty());
}

TEST_F(TrialRowsTest, KnowsBaseline) {
  EXPECT_TRUE(one(R"j("recipe":"dense(f16)")j").is_baseline());
  EXPECT_FALSE(one(R"j("recipe":"dense(f32)")j").is_baseline());
  std::string text = row("");
  text.replace(text.find("H2O(keep=0.5)"), 13, "baseline");
  EXPECT_TRUE(load(text + "\n").rows.at(0).is_baseline());
}

TEST_F(TrialRowsTest, ThinsLongSeries) {
  std::string tokens = "0", seconds = "0.001";
  for (int i = 1; i < 10000; ++i) {
    tokens += "," + std::to_string(i);
    seconds += ",0.001";
  }
  const TrialRow found =
      one(R"("timing":{"prefill_s":1,"token_s":[)" + seconds + R"(]},"steps":{"tokens":[)" + tokens + "]}");
  EXPECT_EQ(found.steps.tokens.size(), kMaxSeriesPoints);
  EXPECT_EQ(found.steps.tokens.front(), 0);
  EXPECT_EQ(found.steps.tokens.back(), 9999);
  EXPECT_LE(found.timing.token_s.size(), kMaxSeriesPoints);
  EXPECT_NEAR(found.timing.token_s.back(), 0.001, 1e-15);
}

TEST_F(TrialRowsTest, TheLastLineOfATrialCountsAndATornOneDoesNot) {
  const TrialRows found = load(row(R"("repeat":1)") + "\n\n" + row(R"("repeat":2)") + "\n" + kLeast);
  ASSERT_EQ(found.rows.size(), 1U);
  EXPECT_EQ(found.rows[0].repeat, 2);
  EXPECT_EQ(found.rows[0].line, 3);
  ASSERT_EQ(found.notes.size(), 2U);
  EXPECT_THAT(found.notes[0], HasSubstr("unfinished line"));
  EXPECT_THAT(found.notes[1], HasSubstr("repeat a trial"));
}

TEST_F(TrialRowsTest, RefusalsNameLineAndField) {
  const std::string good = row("") + "\n";
  EXPECT_THAT(refusal(""), HasSubstr("expected at least one finished trial"));
  EXPECT_THAT(refusal(good + "{\n"), HasSubstr("results.jsonl:2"));
  EXPECT_THAT(refusal(good + "[1]\n"), HasSubstr("results.jsonl:2"));
  const std::pair<const char*, const char*> cases[] = {
      {R"("status":"maybe")", "status"},
      {R"("timing":{"prefill_s":-1})", "timing.prefill_s"},
      {R"("timing":{"token_s":["x"]})", "timing.token_s"},
      {R"("steps":{"tokens":[1,2],"bytes":[1]})", "steps"},
      {R"("steps":{"tokens":[2,1]})", "steps.tokens"},
      {R"("quality":{"top1_agreement":1.5})", "quality.top1_agreement"},
      {R"("judge":{"model":"m","rubric":"r","score":11})", "judge.score"},
      {R"("turns":{})", "turns"},
      {R"("counters":[1])", "counters"},
  };
  for (const auto& [members, field] : cases) {
    const std::string message = refusal(good + row(members) + "\n");
    EXPECT_THAT(message, HasSubstr("results.jsonl:2: "));
    EXPECT_THAT(message, HasSubstr(field));
  }
  EXPECT_THAT(refusal(R"({"trial":"a","model":{"name":"m"},"prompt_set":"p","sample":"0","status":"ok"})"
                      "\n"),
              HasSubstr("strategy"));
  fs::remove(folder_ / kTrialFile);
  EXPECT_THAT(error_of([&] { load_trials(folder_); }), HasSubstr("expected a results folder"));
}

}  // namespace
}  // namespace kva
