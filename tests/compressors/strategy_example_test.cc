// The strategy of docs/examples/strategy, run as somebody else's would be: beside the methods of the list.
#include <gtest/gtest.h>

#include "tests/compressors/compressed_cache.h"

namespace kva {

MethodInfo stride_method();

namespace {

TEST(StrategyExample, KeepsEveryThirdTokenAndTheLatest) {
  std::vector<MethodInfo> known(methods().begin(), methods().end());
  known.push_back(stride_method());
  const Recipe recipe = Recipe::parse("stride(every=3, recent=10)", known);
  ThreadPool pool(1);
  const CacheShape shape{.head_dim = 4, .page_tokens = 8};
  CacheDriver driver(shape, pool);
  Compressor compressor(recipe, driver.cache, pool);
  const Projections source(shape, 40, 1);
  const SequenceId id = driver.add(source);
  for (int i = 0; i < 5; ++i) compressor.after_step(driver.step({{id, 8}}), {});
  std::vector<int32_t> positions;
  for (int64_t page = 0; page < driver.cache.pages(id, 0, 0); ++page) {
    const PageFacts facts = driver.cache.page({id, 0, 0, page, Side::kKey});
    for (int32_t t = 0; t < facts.tokens; ++t)
      if (facts.contiguous || facts.biases[static_cast<std::size_t>(t)] == 0.0f)
        positions.push_back(facts.contiguous ? static_cast<int32_t>(facts.start) + t
                                             : facts.positions[static_cast<std::size_t>(t)]);
  }
  EXPECT_EQ(positions, (std::vector<int32_t>{0,  3,  6,  9,  12, 15, 18, 21, 24, 27,
                                             30, 31, 32, 33, 34, 35, 36, 37, 38, 39}));
}

}  // namespace
}  // namespace kva
