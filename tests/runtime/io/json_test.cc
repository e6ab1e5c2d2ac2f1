#include "runtime/io/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/error.h"
#include "tests/error_of.h"

namespace kva {
namespace {

using ::testing::HasSubstr;

JsonNode parse(std::string_view text) { return JsonNode::parse_text(text, "test.json"); }

TEST(Json, ErrorsNameFileFieldExpectedAndFound) {
  const JsonNode node = parse(R"({"rope": {"factor": "big"}, "layers": 3.5, "list": [1, 2]})");
  EXPECT_EQ(error_of([&] { (void)node.at("rope").at("factor").as_number(0, 8); }),
            "test.json: rope.factor: expected a number from 0 to 8, found \"big\"");
  EXPECT_EQ(error_of([&] { (void)node.at("layers").as_int(1, 100); }),
            "test.json: layers: expected a whole number from 1 to 100, found 3.5");
  EXPECT_EQ(error_of([&] { (void)node.at("heads"); }),
            "test.json: heads: this field is required and missing");
  EXPECT_EQ(error_of([&] { (void)node.at("list").at(1).as_string(); }),
            "test.json: list[1]: expected a string, found 2");
}

TEST(Json, RefusesHostileText) {
  EXPECT_THAT(error_of([] { (void)parse(std::string(100000, '[')); }), HasSubstr("nested deeper"));
  EXPECT_THAT(error_of([] { (void)parse("{\"a\": 1e999}"); }), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of([] { (void)parse("{\"a\": \"\xff\xfe\"}"); }), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of([] { (void)parse("{\"a\": "); }), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of([] { (void)parse(""); }), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of([] { (void)JsonNode::parse_text("[1,2,3]", "t", {.max_bytes = 4}); }),
              HasSubstr("at most 4"));
  EXPECT_THAT(error_of([] { (void)parse("{\"a\": 18446744073709551615}").at("a").as_int(0, 10); }),
              HasSubstr("from 0 to 10"));
}

TEST(Json, FallbacksServeAbsentAndNullMembersOnly) {
  const JsonNode node = parse(R"({"a": null, "b": 4})");
  EXPECT_EQ(node.get_int("a", 7, 0, 10), 7);
  EXPECT_EQ(node.get_int("c", 8, 0, 10), 8);
  EXPECT_EQ(node.get_int("b", 8, 0, 10), 4);
  EXPECT_THROW((void)node.get_string("b", ""), InputError);
}

TEST(Json, RefusesRepeatedKeysWhereAsked) {
  const auto error = [](std::string_view text) {
    return error_of([&] { (void)JsonNode::parse_text(text, "test.json", {.unique_keys = true}); });
  };
  EXPECT_EQ(error(R"({"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]})"), "no error");
  EXPECT_EQ(error(R"({"b": {"a": 1, "c": 2, "a": 1}})"), "test.json: the key \"a\" is given twice");
  EXPECT_EQ(parse(R"({"a": 1, "a": 2})").at("a").as_int(0, 9), 2);
}

}  // namespace
}  // namespace kva
