#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compressors/recipe.h"
#include "tests/compressors/compressed_cache.h"
#include "tests/error_of.h"

namespace kva {
namespace {

std::string refused(std::string_view text) {
  return error_of([&] { (void)Recipe::parse(text); });
}

// A Hadamard matrix and RoPE do not commute, so plain keys cannot be turned; values and dense keys can be
// with any basis.
TEST(Quant, RefusesToRotatePlainKeys) {
  for (const char* text :
       {"keys(plain) ; quant(rotate=true)", "quant(rotate=true) ; keys(plain)",
        "keys(plain) ; side(k): quant(rotate=true)", "keys(plain) ; quant(rotate=true,k=8,v=16)"})
    EXPECT_THAT(refused(text),
                testing::AllOf(testing::HasSubstr("quant: rotate=true"), testing::HasSubstr("keys(plain)")))
        << text;
  for (const char* text :
       {"quant(rotate=true)", "keys(page-relative) ; quant(rotate=true)", "keys(plain) ; quant",
        "keys(plain) ; side(v): quant(rotate=true)", "keys(plain) ; quant(rotate=true,k=16)"})
    EXPECT_EQ(refused(text), "no error") << text;
}

TEST(Quant, SinksAreTokensAtTheFirstPositionsWhereverTheyLie) {
  ThreadPool pool(1);
  const CacheShape shape{.layers = 1, .head_dim = 16, .page_tokens = 16, .type = DType::kF16};
  CompressedCache c("evict(keep=0.25, sinks=1, window=0) | quant(bits=4, sinks=8)", pool, shape);
  const Projections source(c.shape, 32, 1);
  const SequenceId id = c.driver.add(source);
  c.feed(id, 32, 16);
  for (int head = 0; head < shape.kv_heads; ++head) {
    const PageFacts facts = c.driver.cache.page({id, 0, head, 0, Side::kKey});
    ASSERT_EQ(facts.positions.size(), 4u);
    const auto sinks = std::count_if(facts.positions.begin(), facts.positions.end(),
                                     [](int32_t position) { return position < 8; });
    EXPECT_THAT(facts.codec, testing::HasSubstr(std::to_string(sinks) + " tokens f16"));
    EXPECT_THAT(c.driver.cache.page({id, 0, head, 1, Side::kKey}).codec,
                testing::Not(testing::HasSubstr("tokens f16")));
  }
}

}  // namespace
}  // namespace kva
