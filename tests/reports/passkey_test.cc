#include "reports/passkey.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "reports/passkey_json.h"
#include "reports/passkey_run.h"
#include "runtime/model/generator.h"
#include "tests/error_of.h"
#include "tests/reports/evaluation_session.h"

namespace kva {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

// A token for each printable character, the space and the end of a line.
const Tokenizer& tokenizer() {
  static const Tokenizer kTokenizer = [] {
    nlohmann::json file = nlohmann::json::parse(R"({
      "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "decoder": {"type": "ByteLevel"},
      "model": {"type": "BPE", "vocab": {"Ġ": 0, "Ċ": 1}, "merges": []}})");
    for (char c = '!'; c <= '~'; ++c) file["model"]["vocab"][std::string(1, c)] = c - '!' + 2;
    return Tokenizer::parse(file.dump(), "characters");
  }();
  return kTokenizer;
}

std::string long_text() {
  std::string text;
  for (int i = 0; i < 900; ++i) text += "word" + std::to_string(i % 7) + (i % 11 == 0 ? ".\n" : " ");
  return text;
}

std::string text_of(const PasskeyTrial& trial) {
  std::vector<int32_t> ids = trial.prompt;
  ids.insert(ids.end(), trial.question.begin(), trial.question.end());
  return tokenizer().decode(ids);
}

std::vector<PasskeyCell> plan(const PasskeyOptions& options, uint64_t seed = 3) {
  return plan_passkey(options, long_text(), tokenizer(), seed);
}

TEST(PasskeyScore, ComparesTheDigitsThatComeFirst) {
  const PasskeyScore right = score_passkey(" 71432. Remember", "71432");
  EXPECT_TRUE(right.exact && right.final);
  EXPECT_EQ(right.digits, 5);
  const PasskeyScore near = score_passkey("71482\n", "71432");
  EXPECT_FALSE(near.exact);
  EXPECT_TRUE(near.final);
  EXPECT_EQ(near.digits, 4);
  EXPECT_FALSE(score_passkey("714321", "71432").exact) << "another number";
  EXPECT_FALSE(score_passkey("7143", "71432").exact);
  EXPECT_EQ(score_passkey("the 71432", "71432").digits, 0);
  EXPECT_TRUE(score_passkey("the 71432", "71432").final);
}

TEST(PasskeyScore, WaitsWhileDigitsMayFollow) {
  for (const char* answer : {"", " ", "7", " 71432"})
    EXPECT_FALSE(score_passkey(answer, "71432").final) << answer;
  EXPECT_TRUE(score_passkey(" 71432", "71432").exact);
  EXPECT_TRUE(score_passkey("714325", "71432").final);
}

TEST(PlanPasskey, PromptsAreAsLongAsAsked) {
  const auto cells = plan({.depths = {0, 0.5, 1}, .lengths = {600, 900}, .trials = 3});
  ASSERT_EQ(cells.size(), 6u);
  EXPECT_EQ(cells[4].length, 900);
  EXPECT_EQ(cells[4].depth, 0.5);
  for (const PasskeyCell& cell : cells) {
    ASSERT_EQ(cell.trials.size(), 3u);
    for (const PasskeyTrial& trial : cell.trials) {
      const auto tokens = static_cast<int64_t>(trial.prompt.size() + trial.question.size());
      EXPECT_LE(tokens, cell.length);
      EXPECT_GT(tokens, cell.length - 20) << "one more word would not have fitted";
    }
    EXPECT_LE(cell.tokens(), 3 * cell.length);
  }
}

TEST(PlanPasskey, TheKeyStandsAtItsDepthAndTheQuestionApart) {
  const auto cells = plan({.depths = {0, 0.25, 1}, .lengths = {1500}, .trials = 2});
  for (const PasskeyCell& cell : cells) {
    for (const PasskeyTrial& trial : cell.trials) {
      ASSERT_EQ(trial.key.size(), 5u);
      const std::string text = text_of(trial);
      EXPECT_THAT(text, StartsWith("There is an important info"));
      EXPECT_TRUE(text.ends_with("What is the special magic number? The special magic number is")) << text;
      EXPECT_THAT(tokenizer().decode(trial.prompt),
                  AllOf(HasSubstr("The special magic number is " + trial.key), Not(HasSubstr("What is"))));
      const std::size_t head = text.find('\n'), needle = text.find("\nThe special magic number is"),
                        tail = text.rfind("\nWhat");
      const std::size_t after = text.find('\n', text.find("is the special magic number.")) + 1;
      const auto before = static_cast<double>(needle - head - 1);
      const auto filler = before + static_cast<double>(tail - after);
      EXPECT_NEAR(before / filler, cell.depth, 0.02);
    }
  }
}

TEST(PlanPasskey, TrialsAreTheirOwnWhateverElseIsAsked) {
  const auto all = plan({.depths = {0, 0.5}, .lengths = {600, 700}, .trials = 4});
  const auto few = plan({.depths = {0.5}, .lengths = {700}, .trials = 2});
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(few[0].trials[i].key, all[3].trials[i].key);
    EXPECT_EQ(few[0].trials[i].prompt, all[3].trials[i].prompt);
  }
  EXPECT_NE(all[3].trials[0].key, all[3].trials[1].key);
  EXPECT_NE(all[3].trials[0].key, all[2].trials[0].key);
  EXPECT_NE(plan({.depths = {0.5}, .lengths = {700}, .trials = 1}, 4)[0].trials[0].key, all[3].trials[0].key);
}

TEST(PlanPasskey, RefusesWhatHasNoRoomOrNoWords) {
  EXPECT_THAT(error_of([] { plan({.depths = {0}, .lengths = {20}, .trials = 1}); }),
              AllOf(HasSubstr("--passkey-lengths"), HasSubstr("found 20")));
  EXPECT_THAT(error_of([] { plan_passkey({}, " \n\t", tokenizer(), 0); }), HasSubstr("words"));
  // One word is a text too: it is said again.
  EXPECT_EQ(plan_passkey({.depths = {0}, .lengths = {600}, .trials = 1}, "word", tokenizer(), 0).size(), 1u);
}

TEST(SettledPasskey, SuitsTheModelOrNamesTheOption) {
  ModelConfig config;
  config.layers = config.kv_heads = config.heads = config.head_dim = 1;
  config.max_positions = 1000;
  const auto refusal = [&](const PasskeyOptions& options) {
    return error_of([&] { settled_passkey(options, config); });
  };
  const std::vector<int64_t> lengths = {500};
  EXPECT_EQ(settled_passkey({.lengths = lengths}, config).lengths, lengths);
  EXPECT_EQ(settled_passkey({}, config).lengths, (std::vector<int64_t>{248, 496, 992}));
  config.max_positions = 2056;
  EXPECT_EQ(settled_passkey({}, config).lengths, (std::vector<int64_t>{512, 1024, 2048}));
  config.max_positions = 1000;
  EXPECT_THAT(refusal({.depths = {0, 1.5}, .lengths = lengths}), HasSubstr("--passkey-depths"));
  EXPECT_THAT(refusal({.depths = {0, 0}, .lengths = lengths}), HasSubstr("--passkey-depths"));
  EXPECT_THAT(refusal({.depths = {NAN}, .lengths = lengths}), HasSubstr("--passkey-depths"));
  EXPECT_THAT(refusal({.depths = {}, .lengths = lengths}), HasSubstr("--passkey-depths"));
  EXPECT_THAT(refusal({.lengths = {999}}), AllOf(HasSubstr("--passkey-lengths"), HasSubstr("992")));
  EXPECT_THAT(refusal({.lengths = {-1}}), HasSubstr("--passkey-lengths"));
  EXPECT_THAT(refusal({.lengths = lengths, .trials = 0}), HasSubstr("--passkey-trials"));
  EXPECT_THAT(refusal({.lengths = lengths, .trials = 50'000}), HasSubstr("tokens in all"));
}

// A tokenizer in which every second token of the fixture's model is a digit.
Tokenizer digits_of_a_model() {
  nlohmann::json file = nlohmann::json::parse(R"({
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {}, "merges": []}})");
  for (int id = 0; id < 96; ++id) {
    std::string text(static_cast<std::size_t>(id / 20 + 1), static_cast<char>('0' + id / 2 % 10));
    if (id % 2 == 1) std::fill(text.begin(), text.end(), static_cast<char>('a' + id / 2 % 10));
    file["model"]["vocab"][text] = id;
  }
  return Tokenizer::parse(file.dump(), "digits");
}

class RunPasskey : public testing::Test {
 protected:
  RunPasskey() {
    for (int i = 0; i < 40; ++i) {
      PasskeyTrial trial;
      for (int t = 0; t < 24; ++t) trial.prompt.push_back((5 * i + t * t) % 96);
      for (int t = 0; t < 9; ++t) trial.question.push_back((i + 7 * t) % 96);
      trial.key = "12345";
      cell_.trials.push_back(std::move(trial));
    }
  }
  // As answered by the generator, which knows nothing of recipes.
  PasskeyScore generated(const PasskeyTrial& trial) {
    KvCache cache(run_.decoder.cache_options(8, DType::kF32, KeyBasis::kRotated), run_.pool);
    std::vector<int32_t> ids = trial.prompt;
    ids.insert(ids.end(), trial.question.begin(), trial.question.end());
    const auto result = generate(run_.decoder, cache, {ids}, {.max_tokens = kPasskeyAnswerTokens});
    return score_passkey(words_.decode(result.generations[0].tokens), trial.key);
  }
  PasskeyResult answer(const std::vector<std::string>& recipes, double informative = 0) {
    const PasskeyOptions options = {
        .depths = {0.5}, .lengths = {33}, .trials = 40, .informative = informative};
    return run_passkey({cell_}, Session::recipes(recipes), options, 8, words_, run_.setup(), run_.progress);
  }

  Session run_{2};
  Tokenizer words_ = digits_of_a_model();
  PasskeyCell cell_{.length = 33, .depth = 0.5, .trials = {}};
};

TEST_F(RunPasskey, CountsWhatTheGeneratorSays) {
  // Some keys are what the model says anyway.
  int64_t exact = 0, digits = 0;
  for (PasskeyTrial& trial : cell_.trials) {
    for (int guess = 0; guess < 10; ++guess) {
      trial.key = std::string(5, static_cast<char>('0' + guess));
      if (generated(trial).digits > 0) break;
    }
    const PasskeyScore score = generated(trial);
    exact += score.exact ? 1 : 0;
    digits += score.digits;
  }
  ASSERT_GT(digits, 5) << "the model says no digits: the test sees nothing";
  const PasskeyResult result = answer({"dense(f32)"});
  ASSERT_EQ(result.rows.size(), 2u);
  for (const PasskeyRow* row : {&result.base, &result.rows[1]}) {
    EXPECT_EQ(row->recipe, "dense(f32)");
    EXPECT_EQ(row->cells[0].trials, 40);
    EXPECT_EQ(row->cells[0].exact, exact);
    EXPECT_EQ(row->cells[0].digits, digits);
  }
  EXPECT_EQ(result.tokens, std::vector<int64_t>{int64_t{40} * 33});
}

TEST_F(RunPasskey, TheQuestionReadsTheCompressedPrompt) {
  for (PasskeyTrial& trial : cell_.trials)
    for (int guess = 0; guess < 10 && generated(trial).digits == 0; ++guess)
      trial.key = std::string(5, static_cast<char>('0' + guess));
  const PasskeyResult result = answer({"layershare(start=0,every=2)@prefill"});
  EXPECT_NE(result.rows[1].cells[0].digits, result.rows[0].cells[0].digits);
}

TEST_F(RunPasskey, CellsInWhichTheBaseFailsDoNotCount) {
  const PasskeyResult fails = answer({}, 0.8);
  EXPECT_FALSE(fails.informative[0]);
  EXPECT_EQ(fails.total(fails.rows[0]).trials, 0);
  const auto json = passkey_json(fails, "text");
  EXPECT_EQ(json["informative_cells"], 0);
  EXPECT_TRUE(json["rows"][0]["accuracy"].is_null());
  EXPECT_EQ(json["rows"][0]["cells"][0]["accuracy"], 0);
  const PasskeyResult counts = answer({}, 0);
  EXPECT_TRUE(counts.informative[0]);
  EXPECT_EQ(counts.total(counts.rows[0]).trials, 40);
  EXPECT_EQ(passkey_accuracy(counts, counts.rows[0]).value, 0.0);
}

}  // namespace
}  // namespace kva
