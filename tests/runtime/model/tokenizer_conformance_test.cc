// Real vocabularies. The data is not in this repository: the tests skip where it is absent.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "runtime/io/file.h"
#include "runtime/model/tokenizer.h"
#include "tests/runtime/model/llama_spm.h"
#include "tests/runtime/model/tokenizer_fixture.h"

namespace kva {
namespace {

namespace fs = std::filesystem;

const std::string kVocabularies = KVA_SHARED_DATA "/tokenizers";
constexpr int64_t kMaxBytes = 1 << 26;

std::vector<std::string> split_at(std::string_view text, std::string_view mark) {
  std::vector<std::string> parts;
  for (std::size_t at; (at = text.find(mark)) != std::string_view::npos; text.remove_prefix(at + mark.size()))
    parts.emplace_back(text.substr(0, at));
  parts.emplace_back(text);
  return parts;
}

// llama.cpp's cases: the ids are those without BOS.
void check_cases(const Tokenizer& tokenizer, const std::string& name) {
  const std::string stem = kVocabularies + "/conformance/ggml-vocab-" + name + ".gguf";
  const auto texts = split_at(read_text_file(stem + ".inp", kMaxBytes), "\n__ggml_vocab_test__\n");
  const auto lines = split_at(read_text_file(stem + ".out", kMaxBytes), "\n");
  ASSERT_EQ(texts.size(), 47u);
  ASSERT_GE(lines.size(), texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    std::string found;
    for (const int32_t id : tokenizer.encode(texts[i], {.add_special = false}))
      found += fmt::format(" {}", id);
    EXPECT_EQ(found, lines[i]) << "case " << i << ": " << texts[i];
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(texts[i]), true), texts[i]);
  }
}

void check_golden(const Tokenizer& tokenizer, const std::string& name) {
  const JsonNode golden = JsonNode::parse_file(kTokenizerFixtures + "/golden.json");
  const std::string text = std::string(KVA_SHARED_DATA "/") + golden.at("text").as_string();
  if (!fs::exists(text)) GTEST_SKIP() << text << " is absent";
  const auto ids = tokenizer.encode(read_text_file(text, kMaxBytes));
  EXPECT_EQ(static_cast<int64_t>(ids.size()), golden.at(name).at("ids").as_int(0, INT32_MAX));
  EXPECT_EQ(ids_hash(ids), golden.at(name).at("fnv1a").as_string());
}

class Conformance : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(kVocabularies + "/conformance")) GTEST_SKIP() << kVocabularies << " is absent";
  }
};

TEST_F(Conformance, Gpt2) { check_cases(Tokenizer::load(kVocabularies + "/gpt2"), "gpt-2"); }

TEST_F(Conformance, Opt) {
  TempFolder folder;
  folder.link("vocab.json", kVocabularies + "/opt/vocab.json")
      .link("merges.txt", kVocabularies + "/opt/merges.txt");
  folder.put("config.json", R"({"model_type":"opt","vocab_size":50272,"bos_token_id":2,"eos_token_id":2})");
  const Tokenizer tokenizer = Tokenizer::load(folder.path());
  check_cases(tokenizer, "roberta-bpe");
  EXPECT_EQ(tokenizer.encode("Hello world"), (std::vector<int32_t>{2, 31414, 232}));
}

TEST_F(Conformance, Llama2) {
  const std::string json = llama_spm_tokenizer_json(kVocabularies + "/conformance/ggml-vocab-llama-spm.gguf");
  const Tokenizer tokenizer = Tokenizer::parse(json, "llama-spm");
  check_cases(tokenizer, "llama-spm");
  check_golden(tokenizer, "llama-spm");
}

// Where scripts/fetch_model.py puts the converted model.
std::string smollm2_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::string root = cache != nullptr ? cache : fmt::format("{}/.cache", home != nullptr ? home : "");
  return root + "/kvanalyze/models/smollm2-135m";
}

TEST(SmolLm2Tokenizer, AgreesWithHuggingFaceOnWikiText) {
  if (!fs::exists(smollm2_folder())) GTEST_SKIP() << smollm2_folder() << " is absent";
  check_golden(Tokenizer::load(smollm2_folder()), "smollm2-135m");
}

TEST(SmolLm2Tokenizer, KnowsItsChatTemplate) {
  if (!fs::exists(smollm2_folder())) GTEST_SKIP() << smollm2_folder() << " is absent";
  const Tokenizer tokenizer = Tokenizer::load(smollm2_folder());
  const ChatMessage message{"user", "What is a cache?"};
  EXPECT_EQ(tokenizer.chat_template_name(), "chatml");
  EXPECT_EQ(
      tokenizer.apply_chat_template({&message, 1}, true),
      "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
      "<|im_start|>user\nWhat is a cache?<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(tokenizer.bos_id(), 1);
  EXPECT_EQ(tokenizer.eos_ids(), (std::vector<int32_t>{2}));
  EXPECT_EQ(tokenizer.encode("a").size(), 1u);  // no BOS
}

}  // namespace
}  // namespace kva
