#include "runtime/io/config_tree.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "runtime/error.h"

namespace kva {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ConfigNode yaml(const std::string& text) {
  return ConfigNode::parse_text(text, "c.yaml", ConfigSyntax::kYaml);
}
ConfigNode json(const std::string& text) {
  return ConfigNode::parse_text(text, "c.json", ConfigSyntax::kJson);
}

template <typename Work>
std::string error_of(Work work) {
  try {
    work();
  } catch (const InputError& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  return "no error";
}

TEST(ConfigTree, YamlAndJsonAreTheSameTree) {
  const std::string as_yaml = "a: 1\nb:\n  - x\n  - c: true\n    d: 0.5\ne: \"20\"\nf: null\n";
  const std::string as_json =
      "{\n \"a\": 1,\n \"b\": [\n  \"x\",\n  {\"c\": true,\n   \"d\": 0.5}],\n \"e\": \"20\", \"f\": null}";
  for (const ConfigNode& root : {yaml(as_yaml), json(as_json)}) {
    EXPECT_THAT(root.keys(), ElementsAre("a", "b", "e", "f"));
    EXPECT_EQ(root.find("a")->as_int(0, 9), 1);
    const ConfigNode b = *root.find("b");
    ASSERT_EQ(b.size(), 2u);
    EXPECT_EQ(b.at(0).as_text(), "x");
    EXPECT_TRUE(b.at(1).find("c")->as_bool());
    EXPECT_EQ(b.at(1).find("d")->as_number(0, 1), 0.5);
    EXPECT_EQ(b.at(1).find("d")->path(), "b[1].d");
    EXPECT_EQ(root.find("e")->as_text(), "20") << "quoted: a text";
    EXPECT_FALSE(root.find("f").has_value()) << "null is as good as nothing";
    EXPECT_FALSE(root.find("g").has_value());
  }
}

TEST(ConfigTree, ValuesKnowTheirLine) {
  const ConfigNode a = yaml("# comment\na:\n  - 1\n\n  - 2\nb: [3,\n  4]\n");
  EXPECT_EQ(a.find("a")->at(1).line(), 5);
  EXPECT_EQ(a.find("b")->at(1).line(), 7);
  EXPECT_EQ(a.key_line(1), 6);
  const ConfigNode b = json("{\"a\":\n 1\n,\n\n\"b\": [2,\n3\n],\"c\": \"x\"}");
  EXPECT_EQ(b.find("a")->line(), 2);
  EXPECT_EQ(b.key_line(1), 5);
  EXPECT_EQ(b.find("b")->at(0).line(), 5);
  EXPECT_EQ(b.find("b")->at(1).line(), 6);
  EXPECT_EQ(b.find("c")->line(), 7);
}

TEST(ConfigTree, TextsOfBothSyntaxes) {
  EXPECT_EQ(json("[\"\\ud83d\\ude00 \\/ \\n\"]").at(0).as_text(), "\U0001F600 / \n") << "surrogate pairs";
  EXPECT_EQ(yaml("- |\n  two\n  lines\n").at(0).as_text(), "two\nlines\n");
  EXPECT_EQ(yaml("- Random(keep=0.7)\n").at(0).as_text(), "Random(keep=0.7)");
  EXPECT_EQ(yaml("- \"8\"\n").at(0).as_text(), "8");
}

TEST(ConfigTree, WrongTypesAreNamedByLineAndField) {
  const ConfigNode root = yaml("a: x\nb:\n  c: [1, 2]\n  d: 12\n  e: yes\n");
  EXPECT_EQ(error_of([&] { root.find("a")->as_int(1, 5); }),
            "c.yaml:1: a: expected a whole number from 1 to 5, found \"x\"");
  const ConfigNode b = *root.find("b");
  EXPECT_EQ(error_of([&] { b.find("c")->as_text(); }), "c.yaml:3: b.c: expected text, found a list of 2");
  EXPECT_EQ(error_of([&] { b.find("d")->as_int(1, 5); }),
            "c.yaml:4: b.d: expected a whole number from 1 to 5, found \"12\"");
  EXPECT_THAT(error_of([&] { b.find("d")->as_text(); }), HasSubstr("put it in quotes"));
  EXPECT_THAT(error_of([&] { b.find("e")->as_bool(); }),
              HasSubstr("b.e: expected true or false, found \"yes\""));
  EXPECT_THAT(error_of([&] { b.find("d")->as_number(0, 1); }), HasSubstr("a number from 0 to 1"));
  EXPECT_THAT(error_of([&] { root.size(); }), HasSubstr("c.yaml:1: expected a list, found the field \"a\""));
  EXPECT_THAT(error_of([] { json("[\"5\"]").at(0).as_int(0, 9); }), HasSubstr("found \"5\""));
}

TEST(ConfigTree, DamagedFilesAreRefusedWithTheirLine) {
  EXPECT_THAT(error_of([] { yaml("a: 1\nb: [1, 2\nc: 3\n"); }), HasSubstr("c.yaml:"));
  EXPECT_THAT(error_of([] { json("{\"a\": 1,\n \"b\": }"); }), HasSubstr("c.json:2: expected JSON"));
  EXPECT_THAT(error_of([] { yaml("a: 1\nb: 2\na: 3\n"); }),
              HasSubstr("c.yaml:3: \"a\": expected each field once, found it on line 1 too"));
  EXPECT_THAT(error_of([] { json("{\"a\": 1, \"a\": 2}"); }), HasSubstr("each field once"));
  EXPECT_THAT(error_of([] { yaml("a: 1\n---\nb: 2\n"); }), HasSubstr("expected one document"));
  EXPECT_THAT(error_of([] { yaml("a: !python/object x\n"); }), HasSubstr("expected no tag"));
  EXPECT_THAT(error_of([] { yaml("? [1, 2]\n: 3\n"); }), HasSubstr("expected the name of a field"));
  EXPECT_THAT(error_of([] { yaml("a: \xff\n"); }), HasSubstr("c.yaml:1: expected UTF-8"));
  EXPECT_THAT(error_of([] { yaml(std::string("a: 1\nb: \0", 9)); }), HasSubstr("zero byte"));
  EXPECT_TRUE(yaml("").is_null());
}

TEST(ConfigTree, HostileFilesAreBounded) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 20; ++i) {
    bomb += fmt::format("a{0}: &a{0} [", i);
    for (int k = 0; k < 10; ++k) bomb += fmt::format("{}*a{}", k > 0 ? ", " : "", i - 1);
    bomb += "]\n";
  }
  EXPECT_THAT(error_of([&] { yaml(bomb); }), HasSubstr("at most 200000 values"));
  EXPECT_THAT(error_of([] { yaml("a: &a [*a]\n"); }), HasSubstr("one of itself"));
  EXPECT_THAT(error_of([] { yaml(std::string(100000, '[')); }), HasSubstr("expected"));
  EXPECT_THAT(error_of([] { json(std::string(100000, '[')); }), HasSubstr("at most 24 levels"));
  std::string many = "{";
  for (int i = 0; i < 1000; ++i) many += fmt::format("{}\"k{}\": 1", i > 0 ? "," : "", i);
  EXPECT_THAT(error_of([&] { json(many + "}"); }), HasSubstr("at most 512 fields"));
  EXPECT_THAT(error_of([] { yaml(std::string(9 << 20, 'x')); }), HasSubstr("at most 8388608 bytes"));
}

TEST(ConfigTree, AliasesRepeatWhatTheyName) {
  const ConfigNode root = yaml("a: &strategies [Baseline, evict]\nb: *strategies\n");
  EXPECT_EQ(root.find("b")->size(), 2u);
  EXPECT_EQ(root.find("b")->at(1).as_text(), "evict");
  EXPECT_EQ(root.find("b")->line(), 2);
}

}  // namespace
}  // namespace kva
