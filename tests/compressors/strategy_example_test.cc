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
  EXPECT_EQ(
      read_positions(driver.cache, id, 0, 0),
      (std::vector<int32_t>{0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39}));
}

}  // namespace
}  // namespace kva
