// evict and merge: each rule by hand, then what pages hold, weigh and say afterwards.
#include <gmock/gmock.h>

#include <numeric>

#include "compressors/token_merge.h"
#include "tests/compressors/compressed_cache.h"
#include "tests/error_of.h"

namespace kva {
namespace {

using testing::ElementsAre;

// A page of tokens with two numbers each, at positions 0, 1, ...
struct HandPage {
  HandPage(std::vector<float> keys, std::vector<float> values, std::vector<double> mass) {
    k.rows = std::move(keys);
    v.rows = std::move(values);
    k.tokens = v.tokens = static_cast<int64_t>(mass.size());
    k.width = v.width = 2;
    page = {.k = &k, .v = &v, .tables = {Cell{}}, .mass = std::move(mass)};
    for (int32_t t = 0; t < k.tokens; ++t) page.positions.push_back(t);
    page.counts.assign(page.mass.size(), 1.0);
  }
  MergedPage merged(const MergeOptions& options) { return merge_tokens(page, options, threshold); }

  DraftStream k, v;
  TokenPage page;
  std::optional<double> threshold;
};

void expect_rows(const std::vector<float>& got, const std::vector<double>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], expected[i], 1e-6) << i;
}

TEST(Evict, KeepsSinksAndTheMostAttendedTiesToTheEarlier) {
  HandPage hand(std::vector<float>(12), std::vector<float>(12), {0.1, 0.0, 3, 1, 1, 2});
  EXPECT_THAT(survivors(hand.page, 0.5, 0), ElementsAre(2, 3, 5));
  EXPECT_THAT(survivors(hand.page, 0.5, 1), ElementsAre(0, 2, 5));
  EXPECT_THAT(survivors(hand.page, 0.5, 4), ElementsAre(0, 1, 2, 3)) << "sinks may be more than asked for";
  EXPECT_THAT(survivors(hand.page, 1.0, 0), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(survivors(hand.page, 0.01, 0), ElementsAre(2));
  HandPage thirty(std::vector<float>(60), std::vector<float>(60), std::vector<double>(30, 1.0));
  EXPECT_THAT(survivors(thirty.page, 0.1, 0), ElementsAre(0, 1, 2));
}

// Tokens 0 and 2 stay. Token 1 points as 0 does, token 3 as 2: means weighted by mass.
TEST(Merge, ValueGoesToTheNearestKeyByMass) {
  HandPage hand({1, 0, 5, 1, 0, 2, 1, 9}, {1, 2, 3, 4, 5, 6, 7, 8}, {3, 1, 4, 0});
  const MergedPage made = hand.merged({.rule = MergeRule::kValue, .keep = 0.5});
  EXPECT_THAT(made.kept, ElementsAre(0, 2));
  expect_rows(made.k, {1, 0, 0, 2});
  expect_rows(made.v, {0.75 * 1 + 0.25 * 3, 0.75 * 2 + 0.25 * 4, 5, 6});
  EXPECT_THAT(made.counts, ElementsAre(2, 2));
  EXPECT_EQ(made.merged, 2);
  EXPECT_EQ(made.dropped, 0);
}

TEST(Merge, KeysAreFoldedWhereAskedAndCountsAddUp) {
  HandPage hand({1, 0, 5, 1, 0, 2, 1, 9}, {1, 2, 3, 4, 5, 6, 7, 8}, {3, 1, 4, 0});
  hand.page.counts = {1, 4, 2, 1};
  const MergedPage made = hand.merged({.rule = MergeRule::kValue, .keep = 0.5, .keys = true});
  expect_rows(made.k, {0.75 * 1 + 0.25 * 5, 0.25, 0, 2});
  EXPECT_THAT(made.counts, ElementsAre(5, 3));
  EXPECT_THAT(hand.merged({.keep = 0.5, .bias = false}).counts, ElementsAre(1, 2));
}

TEST(Merge, SinksTakeNothing) {
  HandPage hand({1, 0, 1, 0, 0, 1, 1, 0.1f}, {1, 2, 3, 4, 5, 6, 7, 8}, {9, 0.5, 4, 0.5});
  const MergedPage made = hand.merged({.keep = 0.5, .sinks = 1});
  EXPECT_THAT(made.kept, ElementsAre(0, 2));
  EXPECT_THAT(made.counts, ElementsAre(1, 3));
  expect_rows(made.v, {1, 2, (0.5 * 3 + 4 * 5 + 0.5 * 7) / 5, (0.5 * 4 + 4 * 6 + 0.5 * 8) / 5});
  const MergedPage none = hand.merged({.keep = 0.5, .sinks = 2});
  EXPECT_THAT(none.kept, ElementsAre(0, 1));
  EXPECT_EQ(none.dropped, 2);
}

// Tokens 0 to 2 are similar neighbours; 3 stands alone. Two groups: the pivot of the first is token 1, its
// squared distances to 0 and 2 are 1 and 3, so that σ² is 2 and the weights are e^-1/4, 1 and e^-3/4.
TEST(Merge, KvMergerWeighsAGroupByAGaussianAroundItsPivot) {
  const float c = std::sqrt(3.0f);
  HandPage hand({9, 0, 10, 0, 10 + c, 0, 0, 5}, {1, 0, 2, 0, 4, 0, 8, 1}, {1, 3, 2, 1});
  const MergedPage made = hand.merged({.rule = MergeRule::kKvMerger, .keep = 0.5, .threshold = 0.9});
  EXPECT_THAT(made.kept, ElementsAre(1, 3));
  const double near = std::exp(-0.25), far = std::exp(-0.75), sum = 1.0 + near + far;
  expect_rows(made.v, {(near * 1 + 2 + far * 4) / sum, 0, 8, 1});
  expect_rows(made.k, {10, 0, 0, 5});
  EXPECT_THAT(made.counts, ElementsAre(3, 1));
  EXPECT_EQ(made.merged, 2);
}

TEST(Merge, KvMergerJoinsTheMostSimilarFirstAndDropsTheLightestWhereFewAre) {
  // Cosines of neighbours: 1, 0, 0.6.
  HandPage hand({1, 0, 2, 0, 0, 1, 0.8f, 0.6f}, {1, 1, 3, 3, 5, 5, 7, 7}, {2, 1, 3, 4});
  const MergedPage one = hand.merged({.rule = MergeRule::kKvMerger, .keep = 0.75, .threshold = 0.5});
  EXPECT_THAT(one.kept, ElementsAre(0, 2, 3));
  EXPECT_EQ(one.merged, 1);
  const double far = std::exp(-0.5);
  expect_rows(one.v, {(1 + far * 3) / (1 + far), (1 + far * 3) / (1 + far), 5, 5, 7, 7});
  const MergedPage few = hand.merged({.rule = MergeRule::kKvMerger, .keep = 0.5, .threshold = 0.7});
  EXPECT_THAT(few.kept, ElementsAre(0, 3)) << "0 and 1 weigh as much as 2, and come first";
  EXPECT_EQ(few.merged, 1);
  EXPECT_EQ(few.dropped, 1);
}

TEST(Merge, D2oMergesOverItsRunningThresholdAndDropsUnder) {
  // Survivors 0 and 1; token 2 at cosine 0.8 of 0, token 3 at 0.6 of 1. The first threshold is 0.7.
  HandPage hand({1, 0, 0, 1, 0.8f, 0.6f, -0.8f, 0.6f}, {1, 2, 3, 4, 5, 6, 7, 8}, {5, 5, 1, 1});
  const MergeOptions options{.rule = MergeRule::kD2o, .keep = 0.5, .beta = 0.5};
  const MergedPage first = hand.merged(options);
  EXPECT_NEAR(*hand.threshold, 0.7, 1e-6);
  const double e = std::exp(1.0), u = std::exp(0.8);
  expect_rows(first.v, {(e * 1 + u * 5) / (e + u), (e * 2 + u * 6) / (e + u), 3, 4});
  EXPECT_THAT(first.counts, ElementsAre(2, 1));
  EXPECT_EQ(first.merged, 1);
  EXPECT_EQ(first.dropped, 1);
  // The next page: token 2 takes it to 0.75, token 3 to 0.675.
  hand.merged(options);
  EXPECT_NEAR(*hand.threshold, 0.5 * 0.6 + 0.5 * (0.5 * 0.8 + 0.5 * 0.7), 1e-6);
}

TEST(Merge, CamAddsScaledSharesToTheNextSurvivors) {
  // Token 0 goes to 1 and 3, whose mean mass is 4: half of its half each. Token 2 goes to 3 alone: 2 / 5 of
  // it. Nobody follows token 4.
  HandPage hand({1, 0, 1, 0, 1, 0, 1, 0, 1, 0}, {8, 0, 1, 0, 10, 0, 2, 0, 9, 9}, {2, 3, 2, 5, 1});
  const MergedPage made = hand.merged({.rule = MergeRule::kCam, .keep = 0.4, .next = 2});
  EXPECT_THAT(made.kept, ElementsAre(1, 3));
  expect_rows(made.v, {1 + 0.5 * 0.5 * 8, 0, 2 + 0.5 * 0.5 * 8 + 0.4 * 10, 0});
  EXPECT_THAT(made.counts, ElementsAre(1, 1)) << "sums need no bias";
  EXPECT_EQ(made.merged, 2);
  EXPECT_EQ(made.dropped, 1);
}

TEST(Merge, TokensNobodyAttendedToAreAveragedEqually) {
  HandPage hand({0, 0, 0, 0}, {1, 2, 3, 4}, {0, 0});
  expect_rows(hand.merged({.keep = 0.5}).v, {2, 3});
}

// ---- In a cache ----------------------------------------------------------------------------------------

constexpr CacheShape kSmall{.layers = 2, .group = 3, .head_dim = 16, .type = DType::kF16};

double counter(const CompressedCache& c, const std::string& name) {
  for (const auto& [known, value] : c.compressor.stats().counters)
    if (known == name) return value;
  return -1.0;
}

TEST(Evict, PagesKeepTheMostAttendedTokensAndBytesFall) {
  ThreadPool pool(2);
  CompressedCache c("evict(keep=0.25, sinks=2, window=16)", pool, kSmall), dense("Baseline", pool, kSmall);
  const Projections source(c.shape, 80, 1);
  const SequenceId id = c.driver.add(source), of_dense = dense.driver.add(source);
  c.feed(id, 31, 31);
  EXPECT_EQ(c.compressor.stats().plans, 0) << "16 tokens have to follow a page";
  c.feed(id, 1, 1);
  dense.feed(of_dense, 31, 31);
  dense.feed(of_dense, 1, 1);
  const auto mass = naive_mass(c.shape, source, 32);
  for (int head = 0; head < 2; ++head) {
    std::vector<std::pair<double, int32_t>> order;
    for (int32_t t = 2; t < 16; ++t)
      order.emplace_back(-mass[static_cast<std::size_t>(head)][static_cast<std::size_t>(t)], t);
    std::sort(order.begin(), order.end());
    std::vector<int32_t> expected{0, 1, order[0].second, order[1].second};
    std::sort(expected.begin(), expected.end());
    for (int layer = 0; layer < 2; ++layer) {
      const PageFacts facts = c.driver.cache.page({id, layer, head, 0, Side::kValue});
      EXPECT_THAT(facts.positions, testing::ElementsAreArray(expected));
      EXPECT_THAT(facts.biases, testing::Each(0.0f));
      const auto rows = c.page(id, layer, head, 0, Side::kKey);
      const auto whole = dense.page(of_dense, layer, head, 0, Side::kKey);
      for (std::size_t i = 0; i < rows.size(); ++i)
        EXPECT_EQ(rows[i], whole[static_cast<std::size_t>(expected[i / 16]) * 16 + i % 16]);
    }
  }
  const int64_t per_token = 2 * 2 * 2 * 16 * 2;  // layers, heads, sides, numbers, f16
  EXPECT_EQ(c.driver.cache.ledger().payload, dense.driver.cache.ledger().payload - 12 * per_token);
  EXPECT_EQ(counter(c, "evict.dropped_tokens"), 12 * 2 * 2);
  c.feed(id, 48, 7);
  EXPECT_EQ(counter(c, "evict.dropped_tokens"), 4 * 12 * 2 * 2) << "two sinks are among the four of page 0";
  EXPECT_GT(c.compressor.stats().observe_seconds, 0.0);
}

TEST(Merge, StandsOnTheSurvivorsOfEvictAndCountsWhatItMerges) {
  ThreadPool pool(2);
  CompressedCache evict("evict(keep=0.5, window=16)", pool, kSmall);
  CompressedCache merge("merge(keep=0.5, window=16)", pool, kSmall);
  const Projections source(kSmall, 100, 2);
  for (CompressedCache* c : {&evict, &merge}) c->feed(c->driver.add(source), 33, 33);
  EXPECT_EQ(counter(merge, "merge.merged_tokens"), 8 * 2 * 2);
  EXPECT_EQ(counter(merge, "merge.dropped_tokens"), 0);
  for (int head = 0; head < 2; ++head) {
    const PageFacts of_evict = evict.driver.cache.page({0, 1, head, 0, Side::kKey});
    const PageFacts of_merge = merge.driver.cache.page({0, 1, head, 0, Side::kKey});
    EXPECT_THAT(of_merge.positions, testing::ElementsAreArray(of_evict.positions));
    double tokens = 0.0;
    for (const float bias : of_merge.biases) tokens += std::exp(double{bias});
    EXPECT_NEAR(tokens, 16.0, 1e-5) << "all tokens are still counted";
    EXPECT_EQ(merge.page(0, 1, head, 0, Side::kKey), evict.page(0, 1, head, 0, Side::kKey))
        << "keys stay in place";
    EXPECT_NE(merge.page(0, 1, head, 0, Side::kValue), evict.page(0, 1, head, 0, Side::kValue));
  }
  EXPECT_EQ(merge.driver.cache.ledger().held(), evict.driver.cache.ledger().held()) << "at equal bytes";
}

TEST(Merge, FormatsAfterItStoreWhatIsLeft) {
  ThreadPool pool(1);
  // Of two types, pages fill in the one that loses nothing.
  CompressedCache c("keys(plain); layers(0): merge(0.5, window=0) | dense(bf16); rest: dense(f32)", pool,
                    kSmall);
  const Projections source(c.shape, 40, 3);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 40, 40);
  EXPECT_EQ(c.driver.cache.page({id, 0, 0, 1, Side::kKey}).codec, "dense(bf16)");
  const int64_t values = 2 * 2 * 16;  // of a token of a layer: heads, sides, numbers
  EXPECT_EQ(c.driver.cache.ledger().payload, (2 * 8 * 2 + 8 * 4 + 40 * 4) * values);
}

TEST(Merge, LayersThatShareAPageLoseTheSameTokens) {
  ThreadPool pool(1);
  CompressedCache c("layershare(start=0) | merge(keep=0.25, sinks=0, window=0)", pool, kSmall);
  const Projections source(c.shape, 32, 4);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 32, 32);
  const PageFacts lower = c.driver.cache.page({id, 0, 1, 0, Side::kValue});
  const PageFacts upper = c.driver.cache.page({id, 1, 1, 0, Side::kValue});
  EXPECT_EQ(lower.side, upper.side);
  EXPECT_EQ(lower.references, 2);
  EXPECT_EQ(lower.tokens, 4);
  EXPECT_THAT(lower.positions, testing::ElementsAreArray(upper.positions));
  EXPECT_EQ(c.driver.cache.ledger().payload, 2 * 4 * 2 * 2 * 16 * 2);  // pages, tokens, heads, sides, f16
}

// Rows that belong to other positions are not the same tokens' in another layer.
TEST(Merge, LayersWithOtherTokensLeftShareNothingAfterwards) {
  ThreadPool pool(1);
  CompressedCache c("Baseline", pool, kSmall);
  const Projections source(c.shape, 16, 6);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 16, 16);
  std::vector<Cell> cells;
  for (const int layer : {0, 1})
    for (const Side side : {Side::kKey, Side::kValue}) cells.push_back({layer, 0, side});
  for (const char* name : {"layershare", "minicache"}) {
    const MethodInfo& method = *find_method(name);
    Arguments arguments(method);
    arguments.give(0, int64_t{0});
    const StepContext context{c.driver.cache, pool, cells};
    for (const bool same : {true, false}) {
      Draft draft = read_draft(c.driver.cache, id, 0, cells, pool);
      for (const int layer : {0, 1}) {
        const int64_t second = same || layer == 0 ? 5 : 6;
        TokenPage page{.k = draft.stream_of({layer, 0, Side::kKey}),
                       .v = draft.stream_of({layer, 0, Side::kValue}),
                       .tables = {{layer, 0, Side::kKey}},
                       .positions = std::vector<int32_t>(16)};
        std::iota(page.positions.begin(), page.positions.end(), 0);
        shrink(draft, page, {0, second}, {1, 1}, rows_of(*page.k, {0, second}),
               rows_of(*page.v, {0, second}));
      }
      const auto step = method.make(arguments);
      step->begin(context);
      step->run(context, draft);
      const bool shares = draft.streams.size() > 4 || draft.streams[0].cells.size() > 1;
      EXPECT_EQ(shares, same) << name;
    }
  }
}

TEST(Merge, AForkGoesOnWithItsOwnPages) {
  ThreadPool pool(1);
  CompressedCache c("merge(by=d2o, window=16)", pool, kSmall);
  const Projections source(c.shape, 100, 5);
  const SequenceId trunk = c.driver.add(source);
  c.feed(trunk, 50, 10);
  const SequenceId branch = c.driver.cache.fork_sequence(trunk);
  c.compressor.after_fork(trunk, branch);
  c.driver.follow(branch, source);
  c.feed(trunk, 50, 10);
  c.feed(branch, 50, 10);
  EXPECT_EQ(std::vector<float>(c.driver.output(trunk).begin() + 50 * 96, c.driver.output(trunk).end()),
            std::vector<float>(c.driver.output(branch).begin() + 50 * 96, c.driver.output(branch).end()));
  for (const SequenceId id : {trunk, branch}) c.free(id);
  EXPECT_EQ(c.driver.cache.ledger().payload, 0);
}

TEST(Merge, RefusesWhatItCannotDoByName) {
  const auto refused = [](const std::string& text) { return error_of([&] { (void)Recipe::parse(text); }); };
  for (const char* method : {"evict", "merge"}) {
    EXPECT_THAT(refused(std::string("keys(page-relative); ") + method), testing::HasSubstr("page with gaps"));
    EXPECT_THAT(refused(std::string("side(v): ") + method), testing::HasSubstr("one side"));
    EXPECT_THAT(refused(std::string(method) + "(keep=0)"), testing::HasSubstr("keep"));
    EXPECT_THAT(refused(std::string(method) + "(by=nobody)"), testing::HasSubstr("by"));
    EXPECT_EQ(refused(std::string("keys(plain); layers(0): ") + method), "no error");
  }
  for (const char* text : {"merge(threshold=0.5)", "merge(by=d2o, next=4)", "merge(by=cam, beta=0.5)",
                           "merge(by=cam, bias=true)", "merge(by=cam, keys=true)", "merge(keys=true)"})
    EXPECT_THAT(refused(text), testing::HasSubstr("merge: ")) << text;
  ThreadPool pool(1);
  EXPECT_THAT(error_of([&] { CompressedCache c("side(k)&layers(1): dense(f32); rest: evict", pool); }),
              testing::AllOf(testing::HasSubstr("evict"), testing::HasSubstr("layer 1, KV head 0")));
}

}  // namespace
}  // namespace kva
