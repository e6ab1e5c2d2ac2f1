// Tokenizer files of strangers: each is refused in one line, soon, or does no harm.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "runtime/model/tokenizer.h"
#include "tests/runtime/model/tokenizer_fixture.h"

namespace kva {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json minimal() {
  return json::parse(R"({
    "added_tokens": [{"id": 3, "content": "<s>", "special": true}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
}

std::string error_with(const char* pointer, const char* value) {
  json file = minimal();
  file[json::json_pointer(pointer)] = json::parse(value);
  return error_of([&] { Tokenizer::parse(file.dump(), "t.json").encode("abab ab aaaa!"); });
}

TEST(HostileTokenizer, TheMinimalOneIsFine) {
  const Tokenizer tokenizer = Tokenizer::parse(minimal().dump(), "t.json");
  EXPECT_THAT(tokenizer.encode("aba<s>"), ::testing::ElementsAre(2, 0, 3));
}

TEST(HostileTokenizer, BadIds) {
  EXPECT_THAT(error_with("/model/vocab/a", "-1"),
              HasSubstr("t.json: model.vocab: expected token ids from 0 to"));
  EXPECT_THAT(error_with("/model/vocab/a", "2097152"), HasSubstr("found 2097152"));
  EXPECT_THAT(error_with("/model/vocab/a", "18446744073709551615"),
              HasSubstr("expected token ids from 0 to"));
  EXPECT_THAT(error_with("/model/vocab/a", "1.5"),
              HasSubstr("model.vocab.a: expected a token id, found 1.5"));
  EXPECT_THAT(error_with("/model/vocab/a", "1"),
              HasSubstr("expected one token for each id, found two with id 1"));
  EXPECT_THAT(error_with("/model/vocab", "{}"), HasSubstr("at least one token"));
  EXPECT_THAT(error_with("/model/vocab", "[]"), HasSubstr("model.vocab: expected an object"));
  EXPECT_THAT(error_with("/added_tokens/0/id", "99999999999"),
              HasSubstr("added_tokens[0].id: expected a whole number"));
  EXPECT_THAT(error_with("/added_tokens/0/id", "1"),
              HasSubstr("agree with the vocabulary, found \"<s>\" with id 1"));
  EXPECT_THAT(error_with("/added_tokens/0/content", "\"a\""), HasSubstr("agree with the vocabulary"));
}

TEST(HostileTokenizer, BadMerges) {
  EXPECT_THAT(error_with("/model/merges", R"(["a c"])"),
              HasSubstr("t.json: model.merges: expected merges of tokens"));
  EXPECT_THAT(error_with("/model/merges", R"(["b a"])"), HasSubstr("found \"ba\""));
  EXPECT_THAT(error_with("/model/merges", R"(["ab"])"), HasSubstr("model.merges[0]: expected two tokens"));
  EXPECT_THAT(error_with("/model/merges", R"([["a","b"],["a"]])"), HasSubstr("model.merges[1]"));
  EXPECT_THAT(error_with("/model/merges", "7"), HasSubstr("model.merges: expected an array"));
}

TEST(HostileTokenizer, UnsupportedPartsAreNamed) {
  EXPECT_THAT(error_with("/model/type", "\"Unigram\""), HasSubstr("model.type: expected BPE"));
  EXPECT_THAT(error_with("/model/dropout", "0.5"), HasSubstr("model.dropout: expected none"));
  EXPECT_THAT(error_with("/model/end_of_word_suffix", "\"</w>\""), HasSubstr("model.end_of_word_suffix"));
  EXPECT_THAT(
      error_with("/normalizer", R"({"type":"Lowercase"})"),
      HasSubstr("normalizer.type: expected NFC, NFD, NFKC, NFKD, Prepend, Replace or Sequence, found"));
  EXPECT_THAT(error_with("/pre_tokenizer", R"({"type":"Whitespace"})"),
              HasSubstr("pre_tokenizer.type: expected"));
  EXPECT_THAT(error_with("/pre_tokenizer",
                         R"({"type":"Sequence","pretokenizers":[{"type":"ByteLevel"},{"type":"Digits"}]})"),
              HasSubstr("pre_tokenizer.pretokenizers[1].type: expected ByteLevel to be the last"));
  EXPECT_THAT(error_with("/post_processor", R"({"type":"Other"})"),
              HasSubstr("post_processor.type: expected"));
  EXPECT_THAT(error_with("/post_processor",
                         R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}}],
                             "special_tokens":{"<s>":{"ids":[3]}}})"),
              HasSubstr("the text in it once"));
  EXPECT_THAT(error_with("/post_processor", R"({"type":"RobertaProcessing","sep":["x",77],"cls":["<s>",3]})"),
              HasSubstr("post_processor: expected ids of tokens, found 77"));
  EXPECT_THAT(error_with("/decoder", R"({"type":"WordPiece"})"), HasSubstr("decoder.type: expected"));
  EXPECT_THAT(error_with("/pre_tokenizer", "null"), HasSubstr("decoder: this field is required"));
}

std::string error_with_regex(const std::string& regex) {
  const json split = {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}};
  return error_with("/pre_tokenizer", json{{"type", "Sequence"}, {"pretokenizers", {split}}}.dump().c_str());
}

std::string error_on_long_text(const std::string& regex) {
  json file = minimal();
  file["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers",
                            {{{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}},
                             {{"type", "ByteLevel"}, {"use_regex", false}}}}};
  return error_of([&] { Tokenizer::parse(file.dump(), "t.json").encode(std::string(5000, 'a') + "!"); });
}

TEST(HostileTokenizer, RegularExpressions) {
  EXPECT_THAT(error_with_regex("(a"),
              HasSubstr("pattern.Regex: expected a regular expression, found one with a mistake"));
  EXPECT_THAT(error_with_regex("\\C"), HasSubstr("mistake"));  // would cut characters into bytes
  EXPECT_THAT(error_with_regex("\\w+"), HasSubstr("without \\w"));
  EXPECT_THAT(error_with_regex(std::string(70000, 'a')), HasSubstr("at most 65536 bytes"));
  EXPECT_THAT(error_with_regex("((((((a{1,1000}){1,1000}){1,1000}){1,1000})))"), HasSubstr("mistake"));
  EXPECT_THAT(error_on_long_text("(a+)+$"), HasSubstr("failed on the text at byte 0"));
  EXPECT_THAT(error_on_long_text("(a|aa)+$"), HasSubstr("failed on the text at byte 0"));
  EXPECT_THAT(error_on_long_text("a(?=a\\K)"), HasSubstr("mistake"));  // would match backwards
  EXPECT_EQ(error_on_long_text("(?=a)|"), "no error");                 // empty matches end too
}

TEST(HostileTokenizer, ManyOrDeepParts) {
  json many = json::array();
  for (int i = 0; i < 100; ++i) many.push_back({{"type", "Digits"}});
  EXPECT_THAT(
      error_with("/pre_tokenizer", json{{"type", "Sequence"}, {"pretokenizers", many}}.dump().c_str()),
      HasSubstr("at most 32 pre-tokenizers"));
  for (json& one : many) one = {{"type", "NFC"}};
  EXPECT_THAT(error_with("/normalizer", json{{"type", "Sequence"}, {"normalizers", many}}.dump().c_str()),
              HasSubstr("at most 32 normalizers"));
  const std::string deep(100000, '[');
  EXPECT_THAT(error_of([&] { Tokenizer::parse("{\"model\":" + deep, "t.json"); }),
              HasSubstr("nested deeper"));
}

TEST(HostileTokenizer, TextMayNotExplode) {
  const json grow = {
      {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(1000, 'b')}};
  json file = minimal();
  file["normalizer"] = {{"type", "Sequence"}, {"normalizers", {grow}}};
  const Tokenizer tokenizer = Tokenizer::parse(file.dump(), "t.json");
  EXPECT_EQ(error_of([&] { (void)tokenizer.encode("aa"); }), "no error");
  EXPECT_THAT(error_of([&] { (void)tokenizer.encode(std::string(10000, 'a')); }),
              HasSubstr("normalizer.normalizers[0]: expected a replacement"));
  EXPECT_THAT(error_with("/normalizer", R"({"type":"Replace","pattern":{"String":""},"content":"x"})"),
              HasSubstr("expected a text to look for"));
}

TEST(HostileTokenizer, OneVeryLongWordIsEncodedInTime) {
  // Quadratic work on this would take minutes.
  const Tokenizer tokenizer = Tokenizer::parse(minimal().dump(), "t.json");
  std::string word;
  for (int i = 0; i < 500000; ++i) word += "ab";
  EXPECT_EQ(tokenizer.encode(word), std::vector<int32_t>(500000, 2));
}

}  // namespace
}  // namespace kva
