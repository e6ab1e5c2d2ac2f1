// What must hold for the description of every method in the list.
#include "compressors/methods.h"

#include <gtest/gtest.h>

#include <cmath>
#include <regex>
#include <set>

#include "compressors/argument_value.h"
#include "compressors/recipe.h"
#include "compressors/spelling.h"

namespace kva {
namespace {

class EveryMethod : public testing::TestWithParam<std::string> {
 protected:
  const MethodInfo& method() const { return *find_method(GetParam()); }
};

std::vector<std::string> method_names() {
  std::vector<std::string> names;
  for (const MethodInfo& method : methods()) names.emplace_back(method.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Methods, EveryMethod, testing::ValuesIn(method_names()),
                         [](const auto& instance) { return instance.param; });

bool is_name(std::string_view text) {
  return std::regex_match(std::string(text), std::regex("[a-z][a-z0-9_]*"));
}

TEST_P(EveryMethod, HasNamesThatARecipeCanSay) {
  EXPECT_TRUE(is_name(method().name));
  for (const char* reserved : {"keys", "layers", "heads", "side", "rest"}) EXPECT_NE(method().name, reserved);
  for (const MethodAlias& alias : method().aliases) {
    EXPECT_TRUE(is_name(lower_case(alias.name)));
    ASSERT_FALSE(method().parameters.empty());
    EXPECT_TRUE(read_value(method().parameters[0], alias.argument)) << alias.name;
    EXPECT_EQ(find_method(alias.name), &method());
  }
  std::set<std::string_view> names;
  for (const ParameterInfo& parameter : method().parameters) {
    EXPECT_TRUE(is_name(parameter.name)) << parameter.name;
    EXPECT_TRUE(names.insert(parameter.name).second) << parameter.name;
    for (const std::string_view alias : parameter.aliases) {
      EXPECT_TRUE(is_name(alias)) << alias;
      EXPECT_TRUE(names.insert(alias).second) << alias;
    }
  }
}

TEST_P(EveryMethod, SaysWhatItIs) {
  EXPECT_FALSE(method().meaning.empty());
  EXPECT_EQ(method().meaning.find('\n'), std::string::npos);
  for (const Paper& paper : method().papers) {
    EXPECT_FALSE(paper.title.empty());
    EXPECT_TRUE(std::regex_match(std::string(paper.arxiv), std::regex("[0-9]{4}\\.[0-9]{4,5}")))
        << paper.arxiv;
  }
  for (const ParameterInfo& parameter : method().parameters) {
    EXPECT_FALSE(parameter.help.empty()) << parameter.name;
    EXPECT_EQ(parameter.help.find('\n'), std::string::npos) << parameter.name;
  }
}

TEST_P(EveryMethod, HasParametersWithBoundsWordsAndDefaultsThatFit) {
  for (const ParameterInfo& parameter : method().parameters) {
    SCOPED_TRACE(parameter.name);
    if (!parameter.fallback.empty()) {
      const auto value = read_value(parameter, parameter.fallback);
      ASSERT_TRUE(value);
      EXPECT_EQ(value_text(parameter, *value), parameter.fallback);
    }
    EXPECT_EQ(parameter.kind == ParameterKind::kWord && parameter.words.empty(), false);
    EXPECT_EQ(parameter.kind == ParameterKind::kFlag && !parameter.words.empty(), false);
    std::set<std::string_view> words;
    for (const WordInfo& word : parameter.words) {
      EXPECT_TRUE(words.insert(word.name).second) << word.name;
      for (const std::string_view alias : word.aliases) EXPECT_TRUE(words.insert(alias).second) << alias;
    }
    for (const std::string_view word : words) EXPECT_EQ(word, lower_case(word));
    if (parameter.kind == ParameterKind::kWord || parameter.kind == ParameterKind::kFlag) continue;
    EXPECT_TRUE(std::isfinite(parameter.lower) && std::isfinite(parameter.upper));
    EXPECT_LT(parameter.lower, parameter.upper);
    for (const int64_t value : parameter.values)
      EXPECT_TRUE(read_value(parameter, std::to_string(value))) << value;
  }
}

TEST_P(EveryMethod, IsARecipeByItself) { EXPECT_EQ(Recipe::parse(GetParam()).text(), GetParam()); }

TEST(Methods, AreFoundByNameAndAliasInAnyCase) {
  ASSERT_NE(find_method("dense"), nullptr);
  EXPECT_EQ(find_method("dense"), find_method("Baseline"));
  EXPECT_EQ(find_method("QUANT"), find_method("quant"));
  EXPECT_EQ(find_method("qaunt"), nullptr);
  EXPECT_EQ(find_method(""), nullptr);
  std::set<std::string> names;
  for (const MethodInfo& method : methods()) {
    EXPECT_TRUE(names.insert(std::string(method.name)).second) << method.name;
    for (const MethodAlias& alias : method.aliases)
      EXPECT_TRUE(names.insert(lower_case(alias.name)).second) << alias.name;
  }
}

TEST(ArgumentsDeathTest, AbortWhenAMethodAsksForWhatItHasNot) {
  const Arguments arguments(*find_method("quant"));
  EXPECT_DEATH((void)arguments.integer("bist"), "parameter that it has");
  EXPECT_DEATH((void)arguments.integer("axes"), "whole number");
  EXPECT_DEATH((void)arguments.integer("k"), "whole number");
  EXPECT_DEATH((void)arguments.flag("bits"), "flag");
}

TEST(Spelling, FindsTheNearestName) {
  const std::vector<std::string_view> known = {"quant", "dense", "dedup", "k", "v"};
  EXPECT_EQ(nearest_name("qaunt", known), "quant");
  EXPECT_EQ(nearest_name("qunt", known), "quant");
  EXPECT_EQ(nearest_name("dens", known), "dense");
  EXPECT_EQ(nearest_name("dedupe", known), "dedup");
  EXPECT_EQ(nearest_name("w", known), "");
  EXPECT_EQ(nearest_name("", known), "");
  EXPECT_EQ(nearest_name("prune", known), "");
  EXPECT_EQ(nearest_name(std::string(1000, 'q'), known), "");
  EXPECT_EQ(nearest_name("quant", {}), "");
}

TEST(Spelling, ListsNames) {
  const std::vector<std::string> names = {"a", "b", "c"};
  EXPECT_EQ(listed(std::span(names).first(0), "or"), "");
  EXPECT_EQ(listed(std::span(names).first(1), "or"), "a");
  EXPECT_EQ(listed(std::span(names).first(2), "or"), "a or b");
  EXPECT_EQ(listed(names, "and"), "a, b and c");
}

}  // namespace
}  // namespace kva
