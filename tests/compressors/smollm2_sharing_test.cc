// What requests with the same beginning share, on a model that users run.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "compressors/compressor.h"
#include "runtime/error.h"
#include "runtime/io/json.h"
#include "runtime/model/decoder.h"
#include "runtime/model/generator.h"
#include "runtime/model/model_folder.h"

namespace kva {
namespace {

constexpr int64_t kPrefix = 1024;
constexpr int64_t kSuffix = 40;
constexpr int kPageTokens = 64;

class SmolLm2Sharing : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder;
    try {
      folder = find_model("smollm2-135m", {.allow_fetch = false}).path;
    } catch (const InputError& error) {
      GTEST_SKIP() << error.what();
    }
    decoder_.emplace(Decoder::load(folder, {}, pool_));
    // 512 tokens of WikiText-2, there and back again.
    const JsonNode tokens = JsonNode::parse_file(KVA_FIXTURES "/smollm2_llamacpp.json").at("tokens");
    for (int64_t i = 0; i < tokens.size(); ++i)
      prefix_.push_back(static_cast<int32_t>(tokens.at(i).as_int(0, 1 << 24)));
    ASSERT_EQ(prefix_.size() * 2, std::size_t{kPrefix});
    for (std::size_t i = prefix_.size(); i-- > 0;) prefix_.push_back(prefix_[i]);
  }

  std::vector<int32_t> request(int32_t seed) const {
    std::vector<int32_t> ids = prefix_;
    for (int32_t i = 0; i < kSuffix; ++i) ids.push_back(100 + (seed * 7919 + i * 104729) % 40000);
    return ids;
  }

  struct Outcome {
    std::vector<std::vector<int32_t>> texts;
    ByteLedger fullest;  // when the last prompt was complete
    int64_t shared_tokens = 0;
    int64_t prefix_sides = 0;  // of the second request's prefix
    int64_t prefix_shared = 0;
    CompressorStats stats;
  };
  Outcome run(const std::string& text, const std::vector<std::vector<int32_t>>& prompts) {
    const Recipe recipe = Recipe::parse(text);
    const KvCacheOptions options = Compressor::cache_options(
        recipe, decoder_->cache_options(kPageTokens, DType::kF16, KeyBasis::kRotated));
    KvCache cache(options, pool_);
    Compressor compressor(recipe, cache, pool_);
    Outcome outcome;
    GenerateCallbacks callbacks;
    callbacks.listener = &compressor;
    callbacks.on_finished = [&](std::size_t index, SequenceId id, const Generation& generation) {
      outcome.texts.push_back(generation.tokens);
      // The first request is still in the cache when the second ends with it.
      if (index == 0) count_prefix(cache, 1 - id, outcome);
      outcome.fullest = cache.ledger();
    };
    const GenerateResult result = generate(
        *decoder_, cache, prompts,
        {.max_tokens = 8, .batch_size = 2, .share_prefixes = Compressor::shares_prefixes(recipe)}, callbacks);
    outcome.fullest.peak = cache.ledger().peak;
    outcome.shared_tokens = result.stats.shared_tokens;
    outcome.stats = compressor.stats();
    return outcome;
  }

  void count_prefix(const KvCache& cache, SequenceId second, Outcome& outcome) const {
    for (int layer = 0; layer < cache.options().layers; ++layer)
      for (int head = 0; head < cache.options().kv_heads; ++head)
        for (int64_t page = 0; page < kPrefix / kPageTokens; ++page)
          for (const Side side : {Side::kKey, Side::kValue}) {
            ++outcome.prefix_sides;
            if (cache.page({second, layer, head, page, side}).references > 1) ++outcome.prefix_shared;
          }
  }

  ThreadPool pool_{2};
  std::optional<Decoder> decoder_;
  std::vector<int32_t> prefix_;
};

TEST_F(SmolLm2Sharing, ASharedPrefixOfAThousandTokensIsHeldOnce) {
  const std::vector<std::vector<int32_t>> prompts = {request(1), request(2)};
  const Outcome apart = run("dense(f16)", prompts), shared = run("dedup(prefix)", prompts);
  EXPECT_EQ(apart.prefix_shared, 0);
  EXPECT_EQ(shared.shared_tokens, kPrefix);
  EXPECT_EQ(shared.prefix_shared, shared.prefix_sides);
  EXPECT_EQ(shared.prefix_sides, 2 * 30 * 3 * kPrefix / kPageTokens);
  // All that is missing at the peak is one copy of the prefix.
  const int64_t prefix_bytes = int64_t{2} * 30 * 3 * 64 * 2 * kPrefix;
  EXPECT_GE(apart.fullest.peak - shared.fullest.peak, prefix_bytes * 99 / 100);
  EXPECT_EQ(shared.texts, apart.texts);
}

// The second request's logits are the bits that it would have computed alone: a KL of exactly 0. And what it
// then writes does not reach the first.
TEST_F(SmolLm2Sharing, LogitsBehindASharedPrefixAreTheSameBits) {
  const auto vocab = static_cast<std::size_t>(decoder_->config().vocab);
  KvCache cache(decoder_->cache_options(kPageTokens, DType::kF16, KeyBasis::kRotated), pool_);
  const auto logits_of = [&](SequenceId id, const std::vector<int32_t>& ids, std::size_t from) {
    std::vector<float> logits(vocab * kSuffix);
    std::size_t scored = 0;
    while (from < ids.size()) {
      const std::size_t to =
          std::min(ids.size(), from < kPrefix ? std::min<std::size_t>(from + 512, kPrefix) : from + 10);
      const std::vector<int32_t> tokens(ids.begin() + static_cast<std::ptrdiff_t>(from),
                                        ids.begin() + static_cast<std::ptrdiff_t>(to));
      const Batch batch{{{id, 0, static_cast<int64_t>(tokens.size()), static_cast<int64_t>(from)}}};
      std::vector<int64_t> rows;
      if (from >= kPrefix)
        for (std::size_t i = 0; i < tokens.size(); ++i) rows.push_back(static_cast<int64_t>(i));
      decoder_->step(batch, tokens, cache, rows,
                     MatView<float>(logits.data() + scored * vocab, static_cast<int64_t>(rows.size()),
                                    static_cast<int64_t>(vocab)));
      scored += rows.size();
      from = to;
    }
    return logits;
  };
  const SequenceId first = cache.add_sequence();
  const auto of_first = logits_of(first, request(1), 0);
  const SequenceId second = cache.fork_sequence(first, kPrefix);
  const auto of_second = logits_of(second, request(2), kPrefix);
  const SequenceId alone = cache.add_sequence();
  EXPECT_EQ(of_second, logits_of(alone, request(2), 0));
  const SequenceId again = cache.fork_sequence(first, kPrefix);
  EXPECT_EQ(of_first, logits_of(again, request(1), kPrefix));
}

TEST_F(SmolLm2Sharing, ExactDedupFindsNothingInShuffledTokens) {
  std::vector<int32_t> shuffled = request(1);
  std::mt19937 random(3);
  std::shuffle(shuffled.begin(), shuffled.end(), random);
  const Outcome outcome = run("dedup(exact,scope=cache)", {request(1), shuffled});
  EXPECT_EQ(outcome.prefix_shared, 0);
  EXPECT_EQ(outcome.stats.freed_bytes, 0);
  // And all of it where the text is the same.
  const Outcome same = run("dedup(exact,scope=cache)", {request(1), request(1)});
  EXPECT_EQ(same.prefix_shared, same.prefix_sides);
}

}  // namespace
}  // namespace kva
