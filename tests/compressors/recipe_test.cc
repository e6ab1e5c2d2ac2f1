#include "compressors/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/compressors/recipe_methods.h"
#include "tests/error_of.h"

namespace kva {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

Recipe parse(std::string_view text) { return Recipe::parse(text, recipe_test_methods()); }

std::string refused(std::string_view text) {
  return error_of([&] { (void)parse(text); });
}

const RecipeStep& first_step(const Recipe& recipe) { return recipe.statements().front().pipeline.front(); }

// The canonical spelling of a text; checks that it is a fixed point.
std::string canonical(std::string_view text) {
  const std::string spelled = parse(text).text();
  EXPECT_EQ(parse(spelled).text(), spelled) << text;
  return spelled;
}

TEST(RecipeText, KeepsTheSpellingsThatScriptsRelyOn) {
  for (const char* text :
       {"dense(f16)", "quant(k=8,v=8)", "quant(k=4,v=4,axes=kivi,group=page,outliers=0.01)", "same(exact)",
        "same(near=0.98)", "pair(start=0.5,t=0.6)", "pair(rank=0.5)",
        "layers(0-1,28-29): dense(f16) ; rest: quant(bits=4)", "pair(rank=0.5) | quant(bits=4)"})
    EXPECT_EQ(canonical(text), text);
}

TEST(RecipeText, IsCanonical) {
  EXPECT_EQ(canonical("  QUANT ( V = 4 ,\n k=8 ) # comment ; quant\n"), "quant(k=8,v=4)");
  EXPECT_EQ(canonical("rest: quant(4)"), "quant(bits=4)");
  EXPECT_EQ(canonical("quant"), "quant");
  EXPECT_EQ(canonical("keys(rotated); plainly"), "plainly");
  EXPECT_EQ(canonical("plainly; Keys( Page-Relative )"), "keys(page-relative) ; plainly");
  EXPECT_EQ(canonical("keys(plain)"), "keys(plain) ; dense");
  EXPECT_EQ(canonical("keys(rotated)"), "dense");
  EXPECT_EQ(canonical("KEYS(plain , Cache-Relative)"), "keys(plain,cache-relative) ; dense");
  EXPECT_EQ(parse("keys(plain)").positions(), PositionMode::kOriginal);
  EXPECT_EQ(parse("keys(plain,cache-relative)").positions(), PositionMode::kCacheRelative);
  EXPECT_EQ(canonical("side( V )&layers(-1, 3 - -2):fold|quant(2)@seal"),
            "layers(-1,3--2)&side(v): fold | quant(bits=2)");
  EXPECT_EQ(canonical("heads(0,2-2):dense"), "heads(0,2): dense");
  EXPECT_EQ(canonical("quant@every = 64|pair@tokens > 0|plainly@PREFILL"),
            "quant@every=64 | pair@tokens>0 | plainly@prefill");
  EXPECT_EQ(canonical("pair(t=5e-3)"), "pair(t=0.005)");
  EXPECT_EQ(canonical("pair(t=-0)"), "pair(t=0)");
  EXPECT_EQ(canonical("pair(t=1e-9)"), "pair(t=1e-09)");
}

TEST(RecipeText, ReadsAPercentageAsTheVeryNumber) {
  for (const char* share : {"0.7%", "0.007", "7e-3"})
    EXPECT_EQ(first_step(parse(std::string("pair(t=") + share + ")")).arguments.number("t"), 0.007) << share;
  EXPECT_EQ(canonical("quant(outliers=1%)"), "quant(outliers=0.01)");
}

TEST(RecipeText, KnowsBaseline) {
  EXPECT_EQ(canonical("Baseline"), "dense(f16)");
  EXPECT_EQ(canonical("layers(0): BASELINE@prefill"), "layers(0): dense(f16)@prefill");
  EXPECT_EQ(canonical("halves"), "pair(start=0.5)");
  EXPECT_THAT(refused("baseline(f32)"), AllOf(HasSubstr("column 9"), HasSubstr("dense(f16)")));
}

TEST(RecipeArguments, FillsDefaultsAndTellsThemFromWhatWasGiven) {
  const Recipe recipe = parse("quant(bits=4,v=8)");
  const Arguments& arguments = first_step(recipe).arguments;
  EXPECT_EQ(arguments.integer("bits"), 4);
  EXPECT_TRUE(arguments.given("bits"));
  EXPECT_EQ(arguments.integer("v"), 8);
  EXPECT_FALSE(arguments.has("k"));
  EXPECT_FALSE(arguments.given("k"));
  EXPECT_EQ(arguments.word("axes"), "token");
  EXPECT_TRUE(arguments.has("axes"));
  EXPECT_FALSE(arguments.given("axes"));
  EXPECT_FALSE(arguments.flag("symmetric"));
  EXPECT_EQ(arguments.number("outliers"), 0);
}

TEST(RecipeArguments, TakesValuesInOrderAndThenByName) {
  const Recipe recipe = parse("quant(2,8,4,channel,symmetric=true,group=32)");
  const Arguments& arguments = first_step(recipe).arguments;
  EXPECT_EQ(arguments.integer("bits"), 2);
  EXPECT_EQ(arguments.integer("k"), 8);
  EXPECT_EQ(arguments.integer("v"), 4);
  EXPECT_EQ(arguments.word("axes"), "channel");
  EXPECT_FALSE(arguments.is_word("group"));
  EXPECT_EQ(arguments.integer("group"), 32);
  EXPECT_TRUE(arguments.flag("symmetric"));
  EXPECT_EQ(recipe.text(), "quant(bits=2,k=8,v=4,axes=channel,group=32,symmetric=true)");
  EXPECT_TRUE(first_step(parse("quant(group=page)")).arguments.is_word("group"));
}

TEST(RecipeArguments, TellsACountFromAShare) {
  const auto start = [](const std::string& text) {
    const Recipe recipe = parse("pair(" + text + ")");
    const Arguments& arguments = first_step(recipe).arguments;
    return std::pair(arguments.is_count("start"), arguments.number("start"));
  };
  EXPECT_EQ(start("merge_start_layer=12"), std::pair(true, 12.0));
  EXPECT_EQ(start("1"), std::pair(true, 1.0));
  EXPECT_EQ(start("1.0"), std::pair(false, 1.0));
  EXPECT_EQ(start("100%"), std::pair(false, 1.0));
  EXPECT_EQ(start("t=0.1"), std::pair(false, 0.5));
  EXPECT_EQ(canonical("pair(100%)"), "pair(start=1.0)");
  EXPECT_EQ(canonical("pair(merge_start_layer=1)"), "pair(start=1)");
}

TEST(RecipeArguments, ReadsWordsByAnyOfTheirNames) {
  EXPECT_EQ(canonical("dense(FP8)"), "dense(fp8_e4m3)");
  EXPECT_EQ(first_step(parse("dense(type=bfloat16)")).arguments.word("type"), "bf16");
  EXPECT_EQ(canonical("same(approx)"), "same(close)");
}

TEST(RecipeErrors, NameTheNearestMethod) {
  EXPECT_EQ(refused("qaunt(bits=4)"),
            "recipe, column 1: expected a method, found \"qaunt\"; did you mean quant? (kvanalyze methods "
            "lists them)");
  EXPECT_THAT(refused("layers(0): dense | fodl"),
              AllOf(HasSubstr("column 20"), HasSubstr("did you mean fold?")));
  EXPECT_THAT(refused("basline"), HasSubstr("did you mean Baseline?"));
  EXPECT_THAT(refused("layer(0): dense"), HasSubstr("did you mean layers?"));
  EXPECT_THAT(refused("key(plain); dense"), HasSubstr("did you mean keys?"));
  EXPECT_THAT(refused("zzzzzz"), AllOf(HasSubstr("\"zzzzzz\""), Not(HasSubstr("did you mean"))));
}

TEST(RecipeErrors, NameTheNearestParameterAndWord) {
  EXPECT_EQ(refused("quant(4,bist=4)"),
            "recipe, column 9: quant: expected a parameter, found \"bist\"; did you mean bits?");
  EXPECT_THAT(refused("pair(merge_start_layers=4)"), HasSubstr("did you mean merge_start_layer?"));
  EXPECT_THAT(refused("same(wrong=1)"), AllOf(HasSubstr("expected how or near"), HasSubstr("\"wrong\"")));
  EXPECT_THAT(refused("plainly(wrong=1)"), HasSubstr("expected no arguments, found \"wrong\""));
  EXPECT_EQ(refused("quant(axes=kiwi)"),
            "recipe, column 12: quant: axes expected token, channel, kivi or group, found \"kiwi\"; "
            "did you mean kivi?");
  EXPECT_THAT(refused("dense(fp8_e4m2)"), HasSubstr("did you mean fp8_e4m3?"));
  EXPECT_THAT(refused("quant(symmetric=ture)"),
              AllOf(HasSubstr("true or false"), HasSubstr("did you mean true?")));
  EXPECT_THAT(refused("quant(rotate)"), HasSubstr("a value for rotate is given as rotate=true"));
  EXPECT_THAT(refused("keys(plan)"), HasSubstr("did you mean plain?"));
  EXPECT_THAT(refused("keys(plain,cache-relativ)"), HasSubstr("did you mean cache-relative?"));
  EXPECT_THAT(refused("quant@evry=3"), HasSubstr("did you mean every?"));
}

TEST(RecipeErrors, NameValuesOfAnotherKind) {
  EXPECT_THAT(refused("quant(bits=four)"),
              AllOf(HasSubstr("column 12: quant: bits expected 2, 3, 4 or 8"), HasSubstr("\"four\"")));
  EXPECT_THAT(refused("quant(four)"), HasSubstr("quant: bits expected"));
  for (const char* value : {"4.0", "4e0", "50%", "0x4", "+4", "4_0", "--4", ".", "true"})
    EXPECT_THAT(refused(std::string("quant(bits=") + value + ")"), HasSubstr("quant: bits expected"))
        << value;
  for (const char* value :
       {"nan", "inf", "-inf", "infinity", "0x1p-2", "1e", "1.2.3", "%", "1e-2%", "5%%", "-", "half"})
    EXPECT_THAT(refused(std::string("pair(t=") + value + ")"),
                HasSubstr("pair: t expected a number from 0 to 1"))
        << value;
  EXPECT_THAT(refused("same(how=1)"), HasSubstr("same: how expected exact or close"));
  EXPECT_THAT(refused("quant(rotate=1)"), HasSubstr("quant: rotate expected true or false"));
  EXPECT_THAT(refused("quant(group=line)"),
              HasSubstr("quant: group expected a whole number from 2 to 1024, page or head"));
}

TEST(RecipeErrors, NameValuesOutOfRange) {
  for (const char* bits : {"0", "1", "5", "9", "16", "-4", "99999999999999999999999", "9223372036854775808"})
    EXPECT_THAT(
        refused(std::string("quant(bits=") + bits + ")"),
        AllOf(HasSubstr("quant: bits expected 2, 3, 4 or 8"), HasSubstr(std::string(bits).substr(0, 30))));
  for (const char* t : {"1.0001", "-0.1", "101%", "1e308", "1e999", "1e-999"})
    EXPECT_THAT(refused(std::string("pair(t=") + t + ")"), HasSubstr("pair: t expected")) << t;
  EXPECT_THAT(refused("pair(keep=0)"),
              HasSubstr("pair: keep expected a number over 0 and up to 1, found \"0\""));
  for (const char* rank : {"0", "0.0", "0%", "65", "1.5", "-1", "-0.5", "101%"})
    EXPECT_THAT(refused(std::string("pair(rank=") + rank + ")"),
                HasSubstr("pair: rank expected a whole number over 0 and up to 64 or a share"))
        << rank;
  EXPECT_EQ(canonical("pair(rank=64,keep=1)"), "pair(keep=1,rank=64)");
  EXPECT_THAT(refused("quant(group=1)"), HasSubstr("group expected"));
}

TEST(RecipeErrors, NameArgumentsGivenTwiceOrInVain) {
  EXPECT_THAT(refused("quant(4,bits=8)"), AllOf(HasSubstr("column 9"), HasSubstr("bits once")));
  EXPECT_THAT(refused("pair(start=1,merge_start_layer=2)"), HasSubstr("start once"));
  EXPECT_THAT(refused("quant(k=4,8)"), AllOf(HasSubstr("column 11"), HasSubstr("parameter=value")));
  EXPECT_THAT(refused("same(exact,0.5,3)"), HasSubstr("at most 2 arguments"));
  EXPECT_THAT(refused("plainly(1)"), HasSubstr("at most 0 arguments"));
}

TEST(RecipeErrors, ComeFromTheMethodsOwnCheckWithItsPlace) {
  EXPECT_EQ(refused("dense | same(exact,near=0.5)"),
            "recipe, column 9: same: expected exact or near, found both");
}

TEST(RecipeErrors, NameStatementsForASideThatTheMethodLeavesAlone) {
  EXPECT_THAT(refused("side(k): quant | fold"),
              AllOf(HasSubstr("column 18"), HasSubstr("fold"), HasSubstr("values"), HasSubstr("keys alone")));
  EXPECT_EQ(canonical("side(v): fold ; side(k): quant"), "side(v): fold ; side(k): quant");
  EXPECT_EQ(canonical("fold"), "fold");
}

TEST(RecipeErrors, SayWhereTheTextBreaks) {
  const auto at = [](const std::string& text, const std::string& place, const std::string& what) {
    EXPECT_THAT(refused(text), AllOf(StartsWith("recipe, " + place + ": "), HasSubstr(what)));
  };
  at("", "column 1", "expected a statement such as quant(bits=4), found the end");
  at("# nothing\n", "line 2, column 1", "found the end");
  at("quant;", "column 7", "expected a statement");
  at("quant;;dense", "column 7", "found \";\"");
  at("quant |", "column 8", "expected a method after '|', found the end");
  at("quant(", "column 7", "expected an argument of quant, found the end");
  at("quant()", "column 7", "found \")\"");
  at("quant(bits=", "column 12", "expected 2, 3, 4 or 8 for bits, found the end");
  at("quant(4", "column 8", "expected ')' or ','");
  at("quant(4]", "column 8", "found \"]\"");
  at("quant(4,", "column 9", "expected an argument");
  at("quant((4))", "column 7", "found \"(\"");
  at("quant(dense(4))", "column 7", "bits expected");
  at("quant(4))", "column 9", "expected '|', '@', ';' or the end after a step, found \")\"");
  at("quant 4", "column 7", "found \"4\"");
  at("4", "column 1", "found \"4\"");
  at("quant\n  (bits = 0)", "line 2, column 11", "bits expected");
  at("layers(0) dense", "column 11", "expected ':' after the cells");
  at("layers 0: dense", "column 8", "expected '(' after layers");
  at("layers(0: dense", "column 9", "expected ')' to close layers(");
  at("layers(): dense", "column 8", "expected a layer from 0 to");
  at("layers(a): dense", "column 8", "found \"a\"");
  at("layers(0-): dense", "column 10", "expected a layer");
  at("layers(1.5): dense", "column 9", "expected ')'");
  at("layers(-0): dense", "column 9", "expected -1 or less, found -0");
  at("layers(5-2): dense", "column 8", "rising range, found 5-2");
  at("layers(-1--3): dense", "column 8", "rising range");
  at("layers(99999999999999999999): dense", "column 8", "expected a layer");
  at("layers(1048577): dense", "column 8", "expected a layer");
  at("heads(0)&layers(0)&heads(1): dense", "column 20", "heads: expected once");
  at("side(k)&side(v): dense", "column 9", "side: expected once");
  at("side(q): dense", "column 6", "expected k or v, found \"q\"");
  at("heads(0)&rest: dense", "column 10", "expected layers(...), heads(...) or side(...), found \"rest\"");
  at("layers(0): keys(plain)", "column 12", "expected a method, found \"keys\"");
  at("rest dense", "column 6", "expected ':' after rest");
  at("keys(plain); keys(plain); dense", "column 14", "expected once in a recipe");
  at("keys(plain): dense", "column 12", "found \":\"");
  at("keys", "column 5", "expected '(' after keys");
  at("keys(rotated,cache-relative)", "column 6", "expected plain with cache-relative, found rotated");
  at("keys(plain,)", "column 12", "expected cache-relative");
  at("quant; dense", "column 8", "found a second after column 1");
  at("rest: quant; layers(0): dense; dense", "column 32", "found a second after column 1");
  at("quant@", "column 7", "after '@'");
  at("quant@every", "column 12", "as in @every=64");
  at("quant@every=0", "column 13", "1 token or more");
  at("quant@every=-3", "column 13", "a number of tokens");
  at("quant@every=9999999999", "column 13", "a number of tokens");
  at("quant@tokens=3", "column 13", "as in @tokens>1024");
  at("quant@seal@prefill", "column 11", "found \"@\"");
}

TEST(RecipeErrors, BoundEveryLength) {
  EXPECT_THAT(refused(std::string(Recipe::kMaxBytes + 1, ' ')),
              HasSubstr("at most 65536 bytes, found 65537"));
  EXPECT_EQ(canonical("dense" + std::string(Recipe::kMaxBytes - 5, ' ')), "dense");
  std::string steps = "quant", statements = "layers(0): dense", ranges = "layers(0";
  for (std::size_t i = 1; i < Recipe::kMaxSteps; ++i) steps += "|quant";
  for (std::size_t i = 1; i < Recipe::kMaxStatements; ++i) statements += ";layers(0): dense";
  for (std::size_t i = 1; i < Recipe::kMaxRanges; ++i) ranges += ",0";
  EXPECT_EQ(refused(steps), "no error");
  EXPECT_THAT(refused(steps + "|quant"), HasSubstr("at most 16 steps"));
  EXPECT_EQ(refused(statements), "no error");
  EXPECT_THAT(refused(statements + ";layers(0): dense"), HasSubstr("at most 1024 statements"));
  EXPECT_EQ(refused(ranges + "): dense"), "no error");
  EXPECT_THAT(refused(ranges + ",0): dense"), HasSubstr("at most 4096 ranges"));
  std::string short_names = "layers(0): plainly", long_step = "quant(4,4,4,kivi,page,true)";
  while (short_names.size() + 200 < Recipe::kMaxBytes)
    short_names += ";layers(0):" + long_step + "|" + long_step + "|" + long_step + "|" + long_step;
  EXPECT_THAT(refused(short_names), HasSubstr("at most 65536 bytes with all names written"));
  EXPECT_LT(refused(std::string(60000, 'q')).size(), 200u);
  EXPECT_LT(refused("quant(bits=" + std::string(60000, '9') + ")").size(), 200u);
}

TEST(RecipeErrors, RefuseWhatIsNoPlainText) {
  EXPECT_THAT(refused("layers(0\xE2\x80\x93 3): dense"), AllOf(HasSubstr("column 9"), HasSubstr("0xE2")));
  EXPECT_THAT(refused("quant # caf\xC3\xA9"), HasSubstr("0xC3"));
  EXPECT_THAT(refused(std::string("quant\0", 6)), HasSubstr("0x00"));
  EXPECT_THAT(refused("quant\x7F"), HasSubstr("0x7F"));
  EXPECT_THAT(refused("quant\x1B[31m"), HasSubstr("0x1B"));
}

TEST(RecipeResolve, GivesEachCellItsStatement) {
  const Recipe recipe = parse("layers(0-1,-1): dense ; layers(2)&heads(-1)&side(v): fold ; rest: quant");
  const RecipeCells cells = recipe.resolve(4, 2);
  EXPECT_EQ(cells.layers(), 4);
  EXPECT_EQ(cells.kv_heads(), 2);
  for (const Side side : {Side::kKey, Side::kValue}) {
    for (const int head : {0, 1}) {
      for (const int layer : {0, 1, 3}) EXPECT_EQ(cells.statement(layer, head, side), 0);
      EXPECT_EQ(cells.statement(2, head, side), head == 1 && side == Side::kValue ? 1 : 2);
    }
  }
}

TEST(RecipeResolve, LeavesUnnamedCellsDense) {
  const Recipe recipe = parse("side(k): quant ; keys(plain)");
  const RecipeCells cells = recipe.resolve(1, 1);
  EXPECT_EQ(cells.statement(0, 0, Side::kKey), 0);
  const Statement& rest = recipe.statements()[static_cast<std::size_t>(cells.statement(0, 0, Side::kValue))];
  EXPECT_TRUE(rest.rest);
  EXPECT_TRUE(rest.implied);
  ASSERT_EQ(rest.pipeline.size(), 1u);
  EXPECT_EQ(rest.pipeline[0].method->name, "dense");
  EXPECT_EQ(rest.pipeline[0].arguments.word("type"), "f16");
  EXPECT_EQ(recipe.key_basis(), KeyBasis::kPlain);
}

TEST(RecipeResolve, RestMayStandAnywhereAndMayNameNothing) {
  const Recipe recipe = parse("rest: quant ; layers(0--1): dense");
  const RecipeCells cells = recipe.resolve(2, 1);
  for (const int layer : {0, 1}) EXPECT_EQ(cells.statement(layer, 0, Side::kKey), 1);
  EXPECT_EQ(parse("quant").resolve(3, 2).statement(2, 1, Side::kValue), 0);
}

TEST(RecipeResolve, RefusesWhatTheModelDoesNotHave) {
  const auto refuse = [](std::string_view text) {
    return error_of([&] { (void)parse(text).resolve(30, 3); });
  };
  EXPECT_EQ(refuse("dense ; layers(0-30): quant"),
            "recipe, column 9: layers(0-30): expected 0 to 29 (or -30 to -1) in this model, found 30");
  EXPECT_EQ(refuse("heads(3): quant"),
            "recipe, column 1: heads(3): expected 0 to 2 (or -3 to -1) in this model, found 3");
  EXPECT_THAT(refuse("layers(-31): quant"), HasSubstr("found -31"));
  EXPECT_THAT(refuse("layers(-2-4): quant"), HasSubstr("expected a rising range, found 28 to 4"));
  EXPECT_EQ(refuse("layers(-30--1)&heads(0-2): quant"), "no error");
  EXPECT_EQ(refuse("layers(5--25): quant"), "no error");
}

TEST(RecipeResolve, RefusesOverlapsAndNamesThem) {
  const auto refuse = [](std::string_view text) {
    return error_of([&] { (void)parse(text).resolve(30, 3); });
  };
  EXPECT_EQ(
      refuse("layers(0-3): dense ; layers(3-5)&side(v): quant"),
      "recipe, column 22: layers(3-5)&side(v) and layers(0-3) of column 1 both name the values of layer 3, "
      "KV head 0; expected each cell in one statement");
  EXPECT_THAT(refuse("layers(29): dense ; layers(-1): quant"), HasSubstr("layer 29"));
  EXPECT_THAT(refuse("heads(1): dense ; layers(4): quant"), HasSubstr("layer 4, KV head 1"));
  EXPECT_EQ(refuse("side(k): dense ; side(v): quant"), "no error");
  EXPECT_EQ(refuse("layers(0,0-1): dense"), "no error");
}

}  // namespace
}  // namespace kva
