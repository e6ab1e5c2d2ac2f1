#include "runtime/model/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "runtime/io/file.h"
#include "runtime/io/utf8.h"
#include "tests/runtime/model/tokenizer_fixture.h"

namespace kva {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string streamed(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip_special) {
  TextStream stream(tokenizer, skip_special);
  std::string text;
  for (const int32_t id : ids) {
    const std::string piece = stream.push(id);
    EXPECT_EQ(first_invalid_utf8(piece), std::nullopt);
    text += piece;
  }
  return text + stream.finish();
}

class TokenizerFixtures : public ::testing::TestWithParam<const char*> {
 protected:
  std::string folder() const { return kTokenizerFixtures + "/" + GetParam(); }
};

TEST_P(TokenizerFixtures, GivesTheIdsAndTextsOfHuggingFace) {
  const Tokenizer tokenizer = Tokenizer::load(folder());
  const JsonNode cases = JsonNode::parse_file(folder() + "/cases.json").at("cases");
  ASSERT_GT(cases.size(), 60);
  for (int64_t i = 0; i < cases.size(); ++i) {
    const JsonNode one = cases.at(i);
    const std::string text = one.at("text").as_string();
    const std::vector<int32_t> ids = ids_of(one.at("ids"));
    EXPECT_EQ(tokenizer.encode(text), ids) << text;
    EXPECT_EQ(tokenizer.encode(text, {.add_special = false}), ids_of(one.at("plain"))) << text;
    if (!one.has("decoded")) continue;
    EXPECT_EQ(tokenizer.decode(ids), one.at("decoded").as_string());
    EXPECT_EQ(tokenizer.decode(ids, true), one.at("skipped").as_string());
    EXPECT_EQ(streamed(tokenizer, ids, false), one.at("decoded").as_string());
    EXPECT_EQ(streamed(tokenizer, ids, true), one.at("skipped").as_string());
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, TokenizerFixtures,
                         ::testing::Values("gpt2", "llama3", "qwen2", "smollm2", "roberta", "llama2",
                                           "mistral", "metaspace", "splits"),
                         [](const auto& kind) { return std::string(kind.param); });

// Any code points but U+2581 (which these tokenizers take for a space) and surrogates.
std::string random_text(std::mt19937& random) {
  constexpr uint32_t kLimits[] = {0x80, 0x80, 0x250, 0x3000, 0x20000, 0x110000};
  std::string text;
  for (uint32_t length = random() % 40; length > 0; --length) {
    const uint32_t point = random() % kLimits[random() % std::size(kLimits)];
    if (point == 0x2581 || (point >= 0xD800 && point < 0xE000)) continue;
    append_utf8(point, text);
    if (random() % 4 == 0) text += ' ';
  }
  return text;
}

class TokenizerRoundTrip : public TokenizerFixtures {};

TEST_P(TokenizerRoundTrip, DecodesWhatItEncoded) {
  const Tokenizer tokenizer = Tokenizer::load(folder());
  std::mt19937 random(7);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = random_text(random);
    const std::vector<int32_t> ids = tokenizer.encode(text, {.add_special = false, .parse_special = false});
    ASSERT_EQ(tokenizer.decode(ids), text);
    ASSERT_EQ(streamed(tokenizer, ids, true), text);
  }
}

// The others normalize, drop or add characters: they have no round trip by definition.
INSTANTIATE_TEST_SUITE_P(Kinds, TokenizerRoundTrip, ::testing::Values("gpt2", "llama3", "llama2"),
                         [](const auto& kind) { return std::string(kind.param); });

TEST(Tokenizer, CountsIllFormedTextAsReplacementCharacters) {
  const Tokenizer tokenizer = Tokenizer::load(kTokenizerFixtures + "/gpt2");
  EXPECT_EQ(tokenizer.encode("a\xFF\xF0\x9F\x98z"), tokenizer.encode("a\uFFFD\uFFFDz"));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("\xC3")), "\uFFFD");
}

TEST(Tokenizer, IdsWithoutATokenStandForNothing) {
  const Tokenizer tokenizer = Tokenizer::load(kTokenizerFixtures + "/gpt2");
  const int32_t a = tokenizer.encode("a").at(0);
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{-1, a, 50271, INT32_MAX, a}), "aa");
  EXPECT_EQ(tokenizer.token_text(50271), "");
  EXPECT_FALSE(tokenizer.is_special(-5));
}

TEST(Tokenizer, LeavesSpecialTokensInTheTextOnRequest) {
  const Tokenizer tokenizer = Tokenizer::load(kTokenizerFixtures + "/gpt2");
  const int32_t end = tokenizer.encode("<|end|>").at(0);
  EXPECT_TRUE(tokenizer.is_special(end));
  EXPECT_EQ(tokenizer.token_text(end), "<|end|>");
  const auto ids = tokenizer.encode("<|end|>", {.parse_special = false});
  EXPECT_GT(ids.size(), 1u);
  EXPECT_EQ(tokenizer.decode(ids, true), "<|end|>");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("a<|end|>b"), true), "ab");
}

TEST(TextStream, HoldsBackUnfinishedCharacters) {
  const Tokenizer tokenizer = Tokenizer::load(kTokenizerFixtures + "/gpt2");
  const auto ids = tokenizer.encode("\U0001F600");  // no merges: one token for each byte
  ASSERT_EQ(ids.size(), 4u);
  TextStream stream(tokenizer);
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.push(ids[1]), "");
  EXPECT_EQ(stream.push(ids[2]), "");
  EXPECT_EQ(stream.push(ids[3]), "\U0001F600");
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.push(tokenizer.encode("a").at(0)), "\uFFFDa");
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

// A vocabulary of every byte, the merge "a b" and some special tokens, in the two files of GPT-2 and OPT.
class VocabAndMerges : public ::testing::Test {
 protected:
  void SetUp() override {
    const Tokenizer bytes = Tokenizer::load(kTokenizerFixtures + "/gpt2");
    std::string vocab = R"({"<s>":0,"<pad>":1,"</s>":2,"<|endoftext|>":3,"ab":4)";
    for (int byte = 0; byte < 256; ++byte) {
      // Ids 5 to 260, in the order of the bytes; the alphabet's characters need no escape but these two.
      const std::string text = alphabet_text(byte);
      vocab += ",\"" + (text == "\"" || text == "\\" ? "\\" + text : text) + "\":" + std::to_string(5 + byte);
    }
    folder_.put("vocab.json", vocab + "}").put("merges.txt", "#version: 0.2\na b\n");
  }

  static std::string alphabet_text(int byte) {
    std::string text;
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
    static constexpr int kBefore7F = 33;  // the bytes 0 to 32 come first, then 127 to 160, then 173
    const int other = byte <= 32 ? byte : byte == 0xAD ? kBefore7F + 34 : kBefore7F + byte - 127;
    append_utf8(static_cast<uint32_t>(printable ? byte : 256 + other), text);
    return text;
  }

  TempFolder folder_;
};

constexpr int32_t kA = 5 + 'a';

TEST_F(VocabAndMerges, Gpt2AddsNothing) {
  folder_.put("config.json", R"({"model_type":"gpt2","bos_token_id":3,"eos_token_id":3})");
  const Tokenizer tokenizer = Tokenizer::load(folder_.path());
  EXPECT_THAT(tokenizer.encode("aab"), ElementsAre(kA, 4));
  EXPECT_THAT(tokenizer.encode(""), IsEmpty());
  EXPECT_THAT(tokenizer.encode("a<|endoftext|></s>"), ElementsAre(kA, 3, 5 + '<', 5 + '/', 5 + 's', 5 + '>'));
  EXPECT_EQ(tokenizer.bos_id(), 3);
  EXPECT_THAT(tokenizer.eos_ids(), ElementsAre(3));
  EXPECT_EQ(tokenizer.vocab_size(), 261);
}

TEST_F(VocabAndMerges, OptPrependsItsEndOfSentence) {
  folder_.put("config.json", R"({"model_type":"opt","bos_token_id":2,"eos_token_id":2,"vocab_size":300})");
  const Tokenizer tokenizer = Tokenizer::load(folder_.path());
  EXPECT_THAT(tokenizer.encode("ab"), ElementsAre(2, 4));
  EXPECT_THAT(tokenizer.encode(""), ElementsAre(2));
  EXPECT_THAT(tokenizer.encode("ab", {.add_special = false}), ElementsAre(4));
  EXPECT_THAT(tokenizer.encode("a</s>"), ElementsAre(2, kA, 2));
  // As GPT2Tokenizer, for which <s> is three characters.
  EXPECT_THAT(tokenizer.encode("<s>", {.add_special = false}), ElementsAre(5 + '<', 5 + 's', 5 + '>'));
}

TEST_F(VocabAndMerges, TokenizerConfigHasTheLastWordOnBos) {
  folder_.put("config.json", R"({"model_type":"opt"})");
  folder_.put("tokenizer_config.json", R"({"add_bos_token":false,"bos_token":{"content":"</s>"}})");
  EXPECT_THAT(Tokenizer::load(folder_.path()).encode("ab"), ElementsAre(4));
  folder_.put("tokenizer_config.json",
              R"({"add_bos_token":true,"add_eos_token":true,"bos_token":"<s>","eos_token":"</s>"})");
  EXPECT_THAT(Tokenizer::load(folder_.path()).encode("ab"), ElementsAre(0, 4, 2));
}

TEST_F(VocabAndMerges, AddedTokensOfTheConfigurationCount) {
  folder_.put("added_tokens.json", R"({"<extra>":400})");
  const Tokenizer tokenizer = Tokenizer::load(folder_.path());
  EXPECT_THAT(tokenizer.encode("a<extra>"), ElementsAre(kA, 400));
  EXPECT_EQ(tokenizer.vocab_size(), 401);
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{400}), "<extra>");
}

TEST_F(VocabAndMerges, EosIdsOfAllFilesAreKept) {
  folder_.put("config.json", R"({"model_type":"gpt2","eos_token_id":3})");
  folder_.put("generation_config.json", R"({"eos_token_id":[2,3]})");
  folder_.put("special_tokens_map.json", R"({"eos_token":"<pad>"})");
  EXPECT_THAT(Tokenizer::load(folder_.path()).eos_ids(), ElementsAre(3, 2, 1));
}

TEST_F(VocabAndMerges, RefusesAModelWithFewerTokens) {
  folder_.put("config.json", R"({"model_type":"gpt2","vocab_size":260})");
  EXPECT_THAT(error_of([&] { Tokenizer::load(folder_.path()); }),
              ::testing::AllOf(HasSubstr("vocab.json: expected token ids below 260"), HasSubstr("id 260")));
  folder_.put("config.json", R"({"model_type":"gpt2","vocab_size":261})");
  EXPECT_NO_THROW(Tokenizer::load(folder_.path()));
}

TEST_F(VocabAndMerges, RefusesOtherFamilies) {
  folder_.put("config.json", R"({"model_type":"qwen2"})");
  EXPECT_THAT(error_of([&] { Tokenizer::load(folder_.path()); }), HasSubstr("expected tokenizer.json"));
}

TEST_F(VocabAndMerges, NamesTheLineOfABadMerge) {
  folder_.put("merges.txt", "#version: 0.2\na b\na b c\n");
  EXPECT_THAT(error_of([&] { Tokenizer::load(folder_.path()); }),
              HasSubstr("merges.txt: line 3: expected two"));
  folder_.put("merges.txt", "a zz\n");
  EXPECT_THAT(error_of([&] { Tokenizer::load(folder_.path()); }),
              HasSubstr("line 1: expected merges of tokens"));
  folder_.put("merges.txt", "a b\r\n\n");
  EXPECT_NO_THROW(Tokenizer::load(folder_.path()));
}

TEST(Tokenizer, SaysWhatAFolderLacks) {
  const TempFolder folder;
  EXPECT_THAT(error_of([&] { Tokenizer::load(folder.path()); }),
              HasSubstr("expected tokenizer.json, or vocab.json"));
  EXPECT_THAT(error_of([&] { Tokenizer::load(folder.path() + "/none"); }),
              HasSubstr("expected a model folder"));
}

}  // namespace
}  // namespace kva
