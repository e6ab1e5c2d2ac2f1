// Which tokens each eviction strategy keeps, by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "compressors/eviction_step.h"
#include "compressors/prompt_policy.h"
#include "compressors/recipe.h"
#include "tests/error_of.h"

namespace kva {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr PolicyMoment kDecoding{};
constexpr PolicyMoment kPromptEnd{.prompt_ended = true, .prompt_tokens = 8};

std::unique_ptr<Step> step_of(const std::string& recipe) {
  const RecipeStep step = Recipe::parse(recipe).statements().front().pipeline.front();
  return step.method->make(step.arguments);
}

// Tokens at positions 0, 1, ..., all of which may go.
TokenTable table_of(std::vector<float> mass, int layer = 0, int kv_head = 0) {
  TokenTable table{.layer = layer, .kv_head = kv_head};
  table.seen = table.movable = static_cast<int64_t>(mass.size());
  for (int32_t i = 0; i < table.seen; ++i) table.positions.push_back(i);
  table.mass = std::move(mass);
  return table;
}

std::vector<int32_t> positions(const TokenTable& table, const Stays& stays) {
  std::vector<int32_t> kept;
  for (std::size_t t = 0; t < stays.size(); ++t)
    if (stays[t]) kept.push_back(table.positions[t]);
  return kept;
}

// What stays of each table of one layer.
std::vector<std::vector<int32_t>> kept(TokenPolicy& policy, const std::vector<TokenTable>& layer,
                                       const PolicyMoment& moment = kDecoding) {
  std::vector<Stays> stays;
  for (const TokenTable& table : layer) stays.emplace_back(table.positions.size(), 1);
  policy.choose(0, moment, layer, stays);
  std::vector<std::vector<int32_t>> result;
  for (std::size_t h = 0; h < layer.size(); ++h) result.push_back(positions(layer[h], stays[h]));
  return result;
}

std::vector<int32_t> kept(const std::string& recipe, const TokenTable& table,
                          const PolicyMoment& moment = kDecoding) {
  const auto step = step_of(recipe);
  return kept(dynamic_cast<EvictionStep&>(*step).policy(), {table}, moment).front();
}

TEST(Extent, UpToOneIsAShareRoundedUpAndMoreIsACount) {
  EXPECT_EQ((Extent{0.5, true}.of(7)), 4);
  EXPECT_EQ((Extent{0.1, true}.of(30)), 3);
  EXPECT_EQ((Extent{1.0, true}.of(7)), 7);
  EXPECT_EQ((Extent{5, false}.of(7)), 5);
  EXPECT_EQ((Extent{9, false}.of(7)), 7);
}

TEST(AttentionTop, KeepsTheMostAttendedAndTiesGoToTheEarlier) {
  EXPECT_THAT(kept("AttentionTop(keep=0.5)", table_of({3, 1, 5, 1, 2, 9})), ElementsAre(0, 2, 5));
  EXPECT_THAT(kept("AttentionTop(keep=2)", table_of({1, 1, 1, 1})), ElementsAre(0, 1));
  EXPECT_THAT(kept("AttentionTop(keep=4,sinks=1,recent=2)", table_of({0, 7, 3, 8, 0})),
              ElementsAre(0, 1, 3, 4));
  EXPECT_THAT(kept("AttentionTop(keep=1)", table_of({1, 2, 3})), ElementsAre(0, 1, 2));
}

TEST(AttentionTop, AShareIsOfAllTokensSeenNotOfThoseLeft) {
  TokenTable table = table_of({5, 4, 3, 2});
  table.positions = {0, 3, 6, 9};
  table.seen = 10;  // six are gone already
  EXPECT_THAT(kept("AttentionTop(keep=0.3)", table), ElementsAre(0, 3, 6));
  EXPECT_THAT(kept("AttentionTop(keep=0.4)", table), ElementsAre(0, 3, 6, 9));
}

TEST(AttentionTop, TokensOnPagesThatStillFillStayAndCount) {
  TokenTable table = table_of({5, 4, 3, 1, 1});
  table.movable = 3;
  EXPECT_THAT(kept("AttentionTop(keep=3)", table), ElementsAre(0, 3, 4));
  EXPECT_THAT(kept("AttentionTop(keep=2)", table), ElementsAre(3, 4));
  EXPECT_THAT(kept("AttentionTop(keep=2%)", table), ElementsAre(3, 4));
}

TEST(AttentionTop, HeadsOfALayerCanKeepTheSameTokens) {
  const std::vector<TokenTable> layer{table_of({9, 5, 1, 0}, 0, 0), table_of({0, 5, 9, 1}, 0, 1)};
  const auto one = step_of("AttentionTop(keep=0.25)"), same = step_of("AttentionTop(keep=0.25,scope=layer)");
  EXPECT_THAT(kept(dynamic_cast<EvictionStep&>(*one).policy(), layer),
              ElementsAre(ElementsAre(0), ElementsAre(2)));
  // Ranks 1, 2/3, 1/3, 0 and 0, 2/3, 1, 1/3: token 1 and token 2 have 4/3 each, the earlier one stays.
  EXPECT_THAT(kept(dynamic_cast<EvictionStep&>(*same).policy(), layer),
              ElementsAre(ElementsAre(1), ElementsAre(1)));
}

TEST(AttentionBottom, KeepsTheLeastAttended) {
  EXPECT_THAT(kept("AttentionBottom(keep=0.5)", table_of({3, 1, 5, 1, 2, 9})), ElementsAre(1, 3, 4));
}

TEST(Random, DrawsOncePerTokenAndTable) {
  const TokenTable first = table_of(std::vector<float>(64, 1.0f));
  const auto half = kept("Random(keep=0.5)", first);
  EXPECT_EQ(half.size(), 32u);
  EXPECT_EQ(half, kept("Random(keep=0.5)", first));
  EXPECT_NE(half, kept("Random(keep=0.5,draw=1)", first));
  EXPECT_NE(half, kept("Random(keep=0.5)", table_of(std::vector<float>(64, 1.0f), 0, 1)));
  // What a smaller budget keeps, a larger one keeps too: a step later nothing is drawn again.
  const auto quarter = kept("Random(keep=0.25)", first);
  EXPECT_TRUE(std::includes(half.begin(), half.end(), quarter.begin(), quarter.end()));
}

TEST(HybridNPercent, WeighsRanksAndClasses) {
  TokenTable table = table_of({4, 1, 3, 2});
  table.classes = {TokenClass::kSpace, TokenClass::kSpecial, TokenClass::kPunctuation, TokenClass::kWord};
  // Recency 0, 1/3, 2/3, 1; attention 1, 0, 2/3, 1/3; class 0, 1, 1/3, 2/3.
  EXPECT_THAT(kept("HybridNPercent(keep=2,r=1,a=0,t=0)", table), ElementsAre(2, 3));
  EXPECT_THAT(kept("HybridNPercent(keep=2,r=0,a=1,t=0)", table), ElementsAre(0, 2));
  EXPECT_THAT(kept("HybridNPercent(keep=2,r=0,a=0,t=1)", table), ElementsAre(1, 3));
  // 0.5 r + 0.3 a + 0.2 t: 0.3, 0.367, 0.6, 0.733.
  EXPECT_THAT(kept("HybridNPercent(keep=3,r=0.5,a=0.3,t=0.2)", table), ElementsAre(1, 2, 3));
  EXPECT_THAT(error_of([] { Recipe::parse("HybridNPercent(r=0,a=0,t=0)"); }), HasSubstr("a weight over 0"));
}

TEST(SlidingWindow, KeepsTheLatestAndTheMostAttendedBefore) {
  const TokenTable table = table_of({1, 9, 2, 8, 0, 0, 0, 0, 0, 0});
  EXPECT_THAT(kept("SlidingWindow(window=0.3,important=0.1)", table), ElementsAre(1, 7, 8, 9));
  EXPECT_THAT(kept("SlidingWindow(window=4,important=2)", table), ElementsAre(1, 3, 6, 7, 8, 9));
  EXPECT_THAT(kept("SlidingWindow(window=2,important=0)", table), ElementsAre(8, 9));
}

TEST(AttentionSink, KeepsTheFirstAndTheLatest) {
  TokenTable table = table_of(std::vector<float>(10, 1.0f));
  EXPECT_THAT(kept("AttentionSink(sink=2,window=3)", table), ElementsAre(0, 1, 7, 8, 9));
  EXPECT_THAT(kept("AttentionSink(sink_size=1,window_size=0.5)", table), ElementsAre(0, 5, 6, 7, 8, 9));
}

TEST(AdaptiveAttention, KeepsMoreWhereAttentionIsSpread) {
  // Entropy 1 of 1: 0.5 * 1.5 of 8 tokens are 6. Entropy 0: 0.5 * 0.5 of 8 are 2.
  EXPECT_EQ(kept("AdaptiveAttention(base_keep=0.5)", table_of(std::vector<float>(8, 2.0f))).size(), 6u);
  EXPECT_THAT(kept("AdaptiveAttention(base_keep=0.5)", table_of({0, 0, 0, 4, 0, 0, 0, 0})),
              ElementsAre(0, 3));
  // Half on each of two of eight: ln 2 / ln 8 = 1/3, so 0.5 * 5/6 of 8 are 3.33, rounded up.
  EXPECT_EQ(kept("AdaptiveAttention(base_keep=0.5)", table_of({0, 1, 0, 1, 0, 0, 0, 0})).size(), 4u);
  EXPECT_EQ(kept("AdaptiveAttention(base_keep=0.9)", table_of(std::vector<float>(8, 2.0f))).size(), 8u);
}

TEST(L2Norm, KeepsTheShortestKeysAndSkipsTheFirstLayers) {
  TokenTable table = table_of({}, 2);
  table.positions = {0, 1, 2, 3};
  table.seen = table.movable = 4;
  table.keys = {3, 4, 0, 1, -2, 0, 1, 1};  // lengths 5, 1, 2, 1.41
  EXPECT_THAT(kept("L2Norm(keep=0.5)", table), ElementsAre(1, 3));
  table.layer = 1;
  EXPECT_THAT(kept("L2Norm(keep=0.5)", table), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(kept("L2Norm(keep=0.5,skip_layers=0)", table), ElementsAre(1, 3));
}

TEST(KeyDiff, KeepsTheKeysThatDifferFromTheMean) {
  TokenTable table = table_of({});
  table.positions = {0, 1, 2, 3};
  table.seen = table.movable = 4;
  // Directions: right, right, right, up. The mean leans right, so up differs most; of the rest, ties.
  table.keys = {1, 0, 5, 0, 0.1f, 0, 0, 2};
  EXPECT_THAT(kept("KeyDiff(keep=0.5)", table), ElementsAre(0, 3));
  EXPECT_THAT(kept("KeyDiff(keep=0.25)", table), ElementsAre(3));
}

TEST(H2O, KeepsHeavyHittersAndTheLatest) {
  const TokenTable table = table_of({1, 9, 2, 8, 3, 0, 0, 0});
  // Four in all, two of them recent where the recipe does not say.
  EXPECT_THAT(kept("H2O(keep=0.5)", table), ElementsAre(1, 3, 6, 7));
  EXPECT_THAT(kept("H2O(keep=5,recent=2)", table), ElementsAre(1, 3, 4, 6, 7));
  EXPECT_THAT(kept("H2O(keep=5,recent=0.25,sinks=1)", table), ElementsAre(0, 1, 3, 6, 7));
}

TEST(SnapKv, PoolsAsTheAuthorsDo) {
  EXPECT_THAT(pooled(std::vector<float>{3, 0, 6, 9}, 3),
              ElementsAre(DoubleEq(1), DoubleEq(3), DoubleEq(5), DoubleEq(5)));
  EXPECT_THAT(pooled(std::vector<float>{3, 7}, 1), ElementsAre(DoubleEq(3), DoubleEq(7)));
}

TokenTable prompt_table(std::vector<float> late, int layer = 0, int kv_head = 0) {
  TokenTable table = table_of(std::vector<float>(late.size(), 0.0f), layer, kv_head);
  table.late_mass = std::move(late);
  return table;
}

TEST(SnapKv, KeepsTheWindowAndWhatItAttendsTo) {
  const TokenTable table = prompt_table({1, 5, 0, 0, 4, 0, 7, 7});
  EXPECT_THAT(kept("SnapKV(window=2,kernel=1,capacity=4)", table, kPromptEnd), ElementsAre(1, 4, 6, 7));
  // Means of three: 2, 2, 5/3, 4/3, 4/3, 4/3; what the window got does not count.
  EXPECT_THAT(kept("SnapKV(window=2,kernel=3,capacity=0.5)", table, kPromptEnd), ElementsAre(0, 1, 6, 7));
  const auto step = step_of("SnapKV");
  EXPECT_TRUE(dynamic_cast<EvictionStep&>(*step).policy().acts(kPromptEnd));
  EXPECT_FALSE(dynamic_cast<EvictionStep&>(*step).policy().acts(kDecoding));
}

TEST(PyramidKv, GivesLowerLayersMore) {
  const auto step = step_of("PyramidKV(window=2,kernel=1,capacity=6,beta=4)");
  TokenPolicy& policy = dynamic_cast<EvictionStep&>(*step).policy();
  std::vector<TokenTable> tables;
  for (int layer = 0; layer < 3; ++layer) {
    tables.push_back(prompt_table(std::vector<float>(16, 0.0f), layer));
  }
  policy.end_prompt(0, tables);
  // Four tokens beyond the window: 7, 4 and 1, and the window of two.
  EXPECT_EQ(kept(policy, {tables[0]}, {.prompt_ended = true, .prompt_tokens = 16}).front().size(), 9u);
  EXPECT_EQ(kept(policy, {tables[1]}, {.prompt_ended = true, .prompt_tokens = 16}).front().size(), 6u);
  EXPECT_EQ(kept(policy, {tables[2]}, {.prompt_ended = true, .prompt_tokens = 16}).front().size(), 3u);
}

TEST(AdaKv, SharesALayersRoomAmongItsHeads) {
  const std::vector<TokenTable> layer{prompt_table({9, 8, 7, 6, 0, 0, 0, 0}, 0, 0),
                                      prompt_table({5, 1, 1, 1, 1, 1, 0, 0}, 0, 1)};
  const auto free = step_of("AdaKV(window=2,kernel=1,capacity=4,floor=0)");
  // Room for four in all beyond the windows: 9, 8, 7, 6 are all of the first head's.
  EXPECT_THAT(kept(dynamic_cast<EvictionStep&>(*free).policy(), layer, kPromptEnd),
              ElementsAre(ElementsAre(0, 1, 2, 3, 6, 7), ElementsAre(6, 7)));
  // Half of the even split of two is everyone's: 0.5 * 4 + 0.5 * 2 = 3 and 0.5 * 0 + 0.5 * 2 = 1.
  const auto half = step_of("AdaKV(window=2,kernel=1,capacity=4,floor=0.5)");
  EXPECT_THAT(kept(dynamic_cast<EvictionStep&>(*half).policy(), layer, kPromptEnd),
              ElementsAre(ElementsAre(0, 1, 2, 6, 7), ElementsAre(0, 6, 7)));
}

TEST(DuoAttention, HeadsThatLookFarBackKeepEverything) {
  const auto step = step_of("DuoAttention(retrieval=0.5,sink=1,recent=2)");
  TokenPolicy& policy = dynamic_cast<EvictionStep&>(*step).policy();
  std::vector<TokenTable> layer{table_of({4, 1, 1, 2}, 0, 0), table_of({1, 3, 2, 2}, 0, 1)};
  layer[0].near_mass = {2, 1, 1, 2};  // nothing far but to the sink
  layer[1].near_mass = {1, 1, 2, 2};  // 2 of 8 far
  policy.end_prompt(0, layer);
  EXPECT_THAT(kept(policy, layer, kPromptEnd), ElementsAre(ElementsAre(0, 2, 3), ElementsAre(0, 1, 2, 3)));
  ASSERT_EQ(policy.decisions().size(), 2u);
  EXPECT_THAT(policy.decisions()[0].policies, ElementsAre("streaming"));
  EXPECT_EQ(policy.decisions()[0].tokens_after, 3);
  EXPECT_THAT(policy.decisions()[1].policies, ElementsAre("retrieval"));
}

// Eight tokens: special, punctuation, six words. Attention 40% special, 10% punctuation, 30% token 2.
TokenTable fastgen_table() {
  TokenTable table = table_of({4, 1, 3, 0.5f, 0.5f, 0.5f, 0.25f, 0.25f});
  table.classes.assign(8, TokenClass::kWord);
  table.classes[0] = TokenClass::kSpecial;
  table.classes[1] = TokenClass::kPunctuation;
  table.near_mass = {0, 0, 0, 0.5f, 0.5f, 0.25f, 0, 0};
  return table;
}

std::vector<std::string> fastgen_policy(const std::string& recipe, std::vector<int32_t>* tokens = nullptr) {
  const auto step = step_of(recipe);
  TokenPolicy& policy = dynamic_cast<EvictionStep&>(*step).policy();
  const std::vector<TokenTable> layer{fastgen_table()};
  policy.end_prompt(0, layer);
  const auto stay = kept(policy, layer, kPromptEnd).front();
  EXPECT_EQ(policy.decisions().front().tokens_after, static_cast<int64_t>(stay.size()));
  EXPECT_EQ(policy.decisions().front().tokens_before, 8);
  if (tokens) *tokens = stay;
  return policy.decisions().front().policies;
}

TEST(FastGen, TakesTheCheapestPolicyThatReachesT) {
  std::vector<int32_t> stay;
  EXPECT_THAT(fastgen_policy("FastGen(T=0.4,r_f=0.2,r_l=0.2)", &stay), ElementsAre("special"));
  EXPECT_THAT(stay, ElementsAre(0));
  EXPECT_THAT(fastgen_policy("FastGen(T=0.5,r_f=0.2,r_l=0.2)", &stay), ElementsAre("special", "punctuation"));
  EXPECT_THAT(stay, ElementsAre(0, 1));
  // Two tokens of eight are frequent: 0 and 2, together 80%.
  EXPECT_THAT(fastgen_policy("FastGen(T=0.8,r_f=0.25,r_l=0.2)", &stay),
              ElementsAre("special", "punctuation", "frequency"));
  EXPECT_THAT(stay, ElementsAre(0, 1, 2));
  // What queries find of their own latest tokens brings 92.5%; then the last two tokens stay.
  EXPECT_THAT(fastgen_policy("FastGen(T=0.92,r_f=0.25,r_l=0.25)", &stay),
              ElementsAre("special", "punctuation", "frequency", "locality"));
  EXPECT_THAT(stay, ElementsAre(0, 1, 2, 6, 7));
  EXPECT_THAT(fastgen_policy("FastGen(T=0.95,r_f=0.25,r_l=0.25)", &stay),
              ElementsAre("special", "punctuation", "frequency", "locality", "full"));
  EXPECT_EQ(stay.size(), 8u);
}

TEST(FastGen, IsFullAtOneWhateverTheAttention) {
  EXPECT_EQ(fastgen_policy("FastGen(T=1,r_f=1,r_l=1)").back(), "full");
}

TEST(FastGen, PolicyStaysAndItsTokensMoveOn) {
  const auto step = step_of("FastGen(T=0.8,r_f=0.25,r_l=0.2)");
  TokenPolicy& policy = dynamic_cast<EvictionStep&>(*step).policy();
  policy.end_prompt(0, std::vector<TokenTable>{fastgen_table()});
  TokenTable later = fastgen_table();
  later.positions = {0, 1, 2, 8, 9, 10, 11, 12};
  later.mass = {5, 1, 3, 0, 9, 0, 0, 0};
  later.seen = 16;
  // A quarter of 16 tokens are frequent now, the new token at 9 among them.
  EXPECT_THAT(kept(policy, {later}).front(), ElementsAre(0, 1, 2, 9));
  policy.forked(0, 3);
  policy.forget(0);
  EXPECT_EQ(kept(policy, {later}).front().size(), 8u);  // nothing was decided for this sequence
}

}  // namespace
}  // namespace kva
