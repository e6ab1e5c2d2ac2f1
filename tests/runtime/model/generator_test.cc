#include "runtime/model/generator.h"

#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <map>

#include "runtime/interrupt.h"
#include "tests/error_of.h"
#include "tests/runtime/model/decoding.h"

namespace kva {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kFolder = KVA_FIXTURES "/models/llama";  // 64 positions, 96 tokens

class GeneratorTest : public ::testing::Test {
 protected:
  GenerateResult run(const std::vector<std::vector<int32_t>>& prompts, const GenerateOptions& options,
                     const GenerateCallbacks& callbacks = {}) {
    return generate(decoder, cache, prompts, options, callbacks);
  }

  ThreadPool pool{2};
  Decoder decoder = Decoder::load(kFolder, {}, pool);
  KvCache cache{decoder.cache_options(8, DType::kF32, KeyBasis::kRotated), pool};
};

TEST_F(GeneratorTest, GreedyTokensAreTheArgmaxOfATeacherForcedPass) {
  const std::vector<int32_t> prompt = {3, 1, 4, 1, 5, 9, 2, 6};
  const auto result = run({prompt}, {.max_tokens = 12, .chunk_tokens = 3});
  const std::vector<int32_t>& tokens = result.generations[0].tokens;
  ASSERT_EQ(tokens.size(), 12u);
  std::vector<int32_t> text = prompt;
  text.insert(text.end(), tokens.begin(), tokens.end());
  const auto logits = run_alone(decoder, cache, text, {64});
  const auto vocab = static_cast<std::size_t>(decoder.config().vocab);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    EXPECT_EQ(tokens[i], most_likely(std::span(logits).subspan((prompt.size() - 1 + i) * vocab, vocab))) << i;
  EXPECT_EQ(result.stats.prompt_tokens, 8);
  EXPECT_EQ(result.stats.generated_tokens, 12);
  EXPECT_EQ(result.stats.decode_steps, 11);
}

TEST_F(GeneratorTest, SharedPrefixesCostNothingAndChangeNothing) {
  // 40 tokens in common, the third prompt only 12: one page of eight.
  std::vector<int32_t> a, b;
  for (int32_t i = 0; i < 45; ++i) a.push_back(3 + i * 7 % 90);
  b = a;
  b[40] = 1;
  std::vector<int32_t> c(a.begin(), a.begin() + 12);
  c.push_back(2);
  const std::vector<std::vector<int32_t>> prompts = {a, b, c, a};
  GenerateOptions options = {.max_tokens = 10, .batch_size = 4, .chunk_tokens = 8};
  const auto apart = run(prompts, options);
  const int64_t apart_peak = cache.ledger().peak;
  EXPECT_EQ(apart.stats.shared_tokens, 0);
  options.share_prefixes = true;
  KvCache fresh{decoder.cache_options(8, DType::kF32, KeyBasis::kRotated), pool};
  const auto shared = generate(decoder, fresh, prompts, options);
  for (std::size_t i = 0; i < prompts.size(); ++i)
    EXPECT_EQ(shared.generations[i].tokens, apart.generations[i].tokens) << i;
  EXPECT_EQ(shared.stats.shared_tokens, 40 + 8 + 40);
  EXPECT_EQ(shared.stats.prompt_tokens + shared.stats.shared_tokens, apart.stats.prompt_tokens);
  EXPECT_LT(fresh.ledger().peak, apart_peak * 6 / 10);
  EXPECT_EQ(fresh.ledger().payload, 0);
}

TEST_F(GeneratorTest, TextDoesNotDependOnCompanions) {
  std::vector<std::vector<int32_t>> prompts;
  for (int32_t i = 0; i < 20; ++i) prompts.emplace_back(static_cast<std::size_t>(1 + i * 2), i + 3);
  const GenerateOptions alone = {
      .max_tokens = 15, .chunk_tokens = 18, .sampler = {.temperature = 0.9, .seed = 5}};
  GenerateOptions together = alone;
  together.batch_size = 19;  // more than one group of rows
  const auto batched = run(prompts, together);
  for (std::size_t i = 0; i < prompts.size(); ++i)
    EXPECT_EQ(run({prompts[i]}, alone).generations[0].tokens, batched.generations[i].tokens) << i;
  EXPECT_EQ(cache.ledger().payload, 0);  // every sequence was freed
}

TEST_F(GeneratorTest, EndsForItsReasons) {
  const std::vector<int32_t> prompt = {7, 8, 9};
  const auto free = run({prompt}, {.max_tokens = 10}).generations[0];
  EXPECT_EQ(free.reason, FinishReason::kLength);
  const auto at_end = run({prompt}, {.max_tokens = 10, .end_tokens = {free.tokens[0]}}).generations[0];
  EXPECT_EQ(at_end.reason, FinishReason::kEndToken);
  EXPECT_THAT(at_end.tokens, ElementsAre(free.tokens[0]));
  int left = 4;
  const auto stopped =
      run({prompt}, {.max_tokens = 10}, {.on_token = [&](std::size_t, int32_t) { return --left > 0; }});
  EXPECT_EQ(stopped.generations[0].reason, FinishReason::kStopped);
  EXPECT_EQ(stopped.generations[0].tokens.size(), 4u);
  const auto full = run({std::vector<int32_t>(60, 5)}, {.max_tokens = 100}).generations[0];
  EXPECT_EQ(full.reason, FinishReason::kContext);
  EXPECT_EQ(full.tokens.size(), 5u);  // four are stepped at positions 60 to 63
}

TEST_F(GeneratorTest, PromptsAreHandedOverInOrder) {
  std::vector<std::size_t> order;
  std::vector<int> left = {9, 2, 6, 1, 3};
  GenerateCallbacks callbacks;
  callbacks.on_token = [&](std::size_t prompt, int32_t) { return --left[prompt] > 0; };
  callbacks.on_finished = [&](std::size_t prompt, SequenceId sequence, const Generation& generation) {
    order.push_back(prompt);
    EXPECT_EQ(cache.tokens(sequence), 1 + static_cast<int64_t>(generation.tokens.size()));
  };
  run({{1, 2}, {2, 3}, {3, 4}, {4, 5}, {5, 6}}, {.max_tokens = 20, .batch_size = 3}, callbacks);
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(left, ElementsAre(0, 0, 0, 0, 0));
}

TEST_F(GeneratorTest, PrefillAloneLeavesThePromptInTheCache) {
  int64_t seen = 0;
  std::vector<int64_t> progress;
  GenerateCallbacks callbacks;
  callbacks.on_progress = [&](const GenerateProgress& p) { progress.push_back(p.prompt_tokens); };
  callbacks.on_finished = [&](std::size_t, SequenceId sequence, const Generation&) {
    seen += cache.tokens(sequence);
  };
  run({std::vector<int32_t>(20, 3), std::vector<int32_t>(9, 4)}, {.max_tokens = 0, .chunk_tokens = 8},
      callbacks);
  EXPECT_EQ(seen, 29);
  EXPECT_THAT(progress, ElementsAre(8, 16, 20, 28, 29));
}

TEST_F(GeneratorTest, RefusesPromptsBeforeAnyWork) {
  EXPECT_THAT(error_of([&] { run({{1}, {}}, {}); }), HasSubstr("prompt 2: expected at least one token"));
  EXPECT_THAT(error_of([&] { run({std::vector<int32_t>(65, 1)}, {}); }),
              HasSubstr("expected at most 64 tokens, found 65"));
  EXPECT_THAT(error_of([&] { run({{1, 96}}, {}); }), HasSubstr("token id 96: expected an id from 0 to 95"));
  EXPECT_EQ(cache.ledger().payload, 0);
}

// Writes down what it is told.
class Diary : public CacheListener {
 public:
  explicit Diary(const KvCache& cache) : cache_(cache) {}
  void begin_prompt(SequenceId sequence, int64_t start, std::span<const int32_t> prompt) override {
    EXPECT_EQ(start, 0);
    note("begin", sequence, prompt);
    texts[sequence].assign(prompt.begin(), prompt.begin() + cache_.tokens(sequence));
  }
  void after_step(const Batch& batch, std::span<const int32_t> tokens) override {
    ASSERT_EQ(static_cast<int64_t>(tokens.size()), batch.rows());
    for (const BatchSpan& span : batch.spans) {
      std::vector<int32_t>& text = texts[span.sequence];
      ASSERT_EQ(static_cast<int64_t>(text.size()), span.start);
      const auto first = tokens.begin() + span.first_row;
      text.insert(text.end(), first, first + span.tokens);
    }
  }
  void end_prompt(SequenceId sequence) override { note("end", sequence, texts[sequence]); }
  void after_fork(SequenceId sequence, SequenceId copy) override {
    events.push_back(fmt::format("fork {} {}", sequence, copy));
  }
  void before_free(SequenceId sequence) override { note("free", sequence, texts[sequence]); }

  std::vector<std::string> events;
  std::map<SequenceId, std::vector<int32_t>> texts;

 private:
  void note(const char* what, SequenceId sequence, std::span<const int32_t> ids) {
    events.push_back(fmt::format("{} {} {}", what, sequence, fmt::join(ids, ",")));
  }
  const KvCache& cache_;
};

TEST_F(GeneratorTest, ListenersLearnWhichTokensComeAndCame) {
  Diary diary(cache);
  const std::vector<int32_t> a = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3}, b = {3, 1, 4, 1, 5, 9, 2, 6, 7};
  const auto result =
      run({a, b}, {.max_tokens = 3, .batch_size = 2, .chunk_tokens = 4, .share_prefixes = true},
          {.listener = &diary});
  const auto text = [&](std::size_t prompt, std::vector<int32_t> ids) {
    const std::vector<int32_t>& tokens = result.generations[prompt].tokens;
    ids.insert(ids.end(), tokens.begin(), tokens.end() - 1);  // the last is not stepped
    return fmt::format("{}", fmt::join(ids, ","));
  };
  EXPECT_THAT(diary.events, ElementsAre("begin 0 3,1,4,1,5,9,2,6,5,3", "end 0 3,1,4,1,5,9,2,6,5,3",
                                        "fork 0 1", "begin 1 3,1,4,1,5,9,2,6,7", "end 1 3,1,4,1,5,9,2,6,7",
                                        "free 0 " + text(0, a), "free 1 " + text(1, b)));
}

// In a process of its own: the signal's flag stays set.
TEST(GeneratorDeathTest, AnInterruptFreesItsSequences) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto interrupted = [] {
    install_interrupt_handler();
    ThreadPool pool(1);
    Decoder decoder = Decoder::load(kFolder, {}, pool);
    KvCache cache(decoder.cache_options(8, DType::kF32, KeyBasis::kRotated), pool);
    GenerateCallbacks callbacks;
    callbacks.on_token = [](std::size_t, int32_t) {
      ::kill(::getpid(), SIGINT);
      while (!interrupt_requested()) std::this_thread::yield();
      return true;
    };
    try {
      generate(decoder, cache, {{1, 2, 3}}, {.max_tokens = 20}, callbacks);
    } catch (const Interrupted&) {
      std::_Exit(cache.ledger().payload == 0 ? 130 : 1);
    }
    std::_Exit(0);
  };
  EXPECT_EXIT(interrupted(), ::testing::ExitedWithCode(130), "");
}

}  // namespace
}  // namespace kva
