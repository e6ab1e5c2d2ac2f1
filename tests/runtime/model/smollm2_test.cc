// SmolLM2-135M as we convert and run it against llama.cpp on the GGUF it comes from; the reference figures
// are in tests/fixtures/smollm2_llamacpp.json, made by scripts/golden_smollm2.py.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "runtime/error.h"
#include "runtime/io/json.h"
#include "runtime/model/decoder.h"
#include "runtime/model/generator.h"
#include "runtime/model/model_folder.h"
#include "runtime/model/sampler.h"
#include "runtime/model/tokenizer.h"

namespace kva {
namespace {

std::vector<int32_t> ids_of(const JsonNode& array) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < array.size(); ++i)
    ids.push_back(static_cast<int32_t>(array.at(i).as_int(0, 1 << 24)));
  return ids;
}

class SmolLm2 : public ::testing::Test {
 protected:
  void SetUp() override {
    try {
      folder_ = find_model("smollm2-135m", {.allow_fetch = false}).path;
    } catch (const InputError& error) {
      GTEST_SKIP() << error.what();
    }
  }

  std::string folder_;
  ThreadPool pool_{2};
  JsonNode golden_ = JsonNode::parse_file(KVA_FIXTURES "/smollm2_llamacpp.json");
};

struct Score {
  double mean_nll = 0.0;
  std::vector<int32_t> top1;
};

// Teacher-forced over all tokens in one sequence.
Score score(Decoder& decoder, const std::vector<int32_t>& tokens, ThreadPool& pool) {
  const int64_t vocab = decoder.config().vocab;
  const auto count = static_cast<int64_t>(tokens.size());
  KvCache cache(decoder.cache_options(16, DType::kF16, KeyBasis::kRotated), pool);
  const Batch batch{{{cache.add_sequence(), 0, count, 0}}};
  std::vector<int64_t> rows(tokens.size());
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int64_t>(i);
  std::vector<float> logits(tokens.size() * static_cast<std::size_t>(vocab));
  const MatView<float> view(logits.data(), count, vocab);
  decoder.step(batch, tokens, cache, rows, view);
  Score result;
  for (int64_t i = 0; i + 1 < count; ++i) {
    const std::span<const float> row(view.row(i), static_cast<std::size_t>(vocab));
    const int32_t best = most_likely(row);
    double sum = 0.0;
    for (const float logit : row)
      sum += std::exp(static_cast<double>(logit) - row[static_cast<std::size_t>(best)]);
    const auto target = static_cast<std::size_t>(tokens[static_cast<std::size_t>(i + 1)]);
    result.mean_nll += std::log(sum) + row[static_cast<std::size_t>(best)] - row[target];
    result.top1.push_back(best);
  }
  result.mean_nll /= static_cast<double>(count - 1);
  return result;
}

double agreement(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  EXPECT_EQ(a.size(), b.size());
  double same = 0;
  for (std::size_t i = 0; i < a.size(); ++i) same += a[i] == b[i];
  return same / static_cast<double>(a.size());
}

TEST_F(SmolLm2, AgreesWithLlamaCppOnWikiText) {
  Decoder decoder = Decoder::load(folder_, {}, pool_);
  const Score ours = score(decoder, ids_of(golden_.at("tokens")), pool_);
  const double perplexity = std::exp(ours.mean_nll);
  // llama.cpp on the GGUF as it is rounds every product's input to 8 bits.
  const JsonNode as_is = golden_.at("as_is");
  EXPECT_NEAR(perplexity / as_is.at("perplexity").as_number(1, 1e6), 1.0, 0.01);
  EXPECT_GE(agreement(ours.top1, ids_of(as_is.at("top1"))), 0.90);
  // On the same weights written out in f32, what is left is the f16 cache and the f16 copy of the weights:
  // about 2^-11 in each factor, far below 0.1% of perplexity.
  const JsonNode dequantized = golden_.at("dequantized");
  EXPECT_NEAR(perplexity / dequantized.at("perplexity").as_number(1, 1e6), 1.0, 0.001);
  EXPECT_GE(agreement(ours.top1, ids_of(dequantized.at("top1"))), 0.99);
  RecordProperty("perplexity", std::to_string(perplexity));
}

TEST_F(SmolLm2, ContinuesATextCoherently) {
  Decoder decoder = Decoder::load(folder_, {}, pool_);
  const Tokenizer tokenizer = Tokenizer::load(folder_);
  const std::vector<int32_t> prompt =
      tokenizer.encode(golden_.at("prompt").as_string(), {.add_special = false});
  EXPECT_EQ(prompt, ids_of(golden_.at("prompt_tokens")));
  KvCache cache(decoder.cache_options(16, DType::kF16, KeyBasis::kRotated), pool_);
  const GenerateResult result = generate(decoder, cache, {prompt}, {.max_tokens = 8});
  const std::string text = tokenizer.decode(result.generations[0].tokens);
  EXPECT_EQ(text.rfind(" Paris.", 0), 0u) << text;
}

}  // namespace
}  // namespace kva
