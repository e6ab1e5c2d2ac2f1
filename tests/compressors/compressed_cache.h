// A cache under a recipe, fed with random projections; what learns has learnt from `sample`, or from random
// pages. Its ledger is compared with the allocator after every step.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "compressors/compressor.h"
#include "tests/compressors/random_sample.h"
#include "tests/runtime/kv/cache_fixture.h"

namespace kva {

class CompressedCache {
 public:
  CompressedCache(const std::string& text, ThreadPool& pool,
                  CacheShape wanted = {.layers = 4, .group = 3, .head_dim = 16, .type = DType::kF16},
                  const PageSet* sample = nullptr, uint64_t seed = 0)
      : recipe(Recipe::parse(text)),
        shape(wanted),
        driver(Compressor::cache_options(recipe, wanted.options()), wanted, pool),
        compressor(recipe, driver.cache, pool, seed) {
    shape.basis = recipe.key_basis();
    if (compressor.needs_sample()) compressor.fit(sample ? *sample : normal_sample(shape, 16, 99));
  }

  void step(const std::vector<CacheDriver::Take>& takes) {
    compressor.after_step(driver.step(takes), {});
    expect_honest();
  }
  void feed(SequenceId id, int64_t tokens, int64_t chunk) {
    for (const int64_t end = driver.cache.tokens(id) + tokens; driver.cache.tokens(id) < end;)
      step({{id, std::min(chunk, end - driver.cache.tokens(id))}});
  }
  void free(SequenceId id) {
    compressor.before_free(id);
    driver.cache.free_sequence(id);
    expect_honest();
  }
  void expect_honest() const {
    const ByteLedger ledger = driver.cache.ledger();
    ASSERT_EQ(ledger.held() + ledger.workspace, driver.cache.backend().allocated_bytes());
    ASSERT_GE(ledger.slack, 0);
    ASSERT_GE(ledger.payload, 0);
  }

  std::vector<float> page(SequenceId id, int layer, int kv_head, int64_t page, Side side) const {
    const PageFacts facts = driver.cache.page({id, layer, kv_head, page, side});
    std::vector<float> rows(static_cast<std::size_t>(facts.tokens * shape.head_dim));
    driver.cache.read_page(id, layer, kv_head, page, side,
                           MatView<float>(rows.data(), facts.tokens, shape.head_dim));
    return rows;
  }

  Recipe recipe;
  CacheShape shape;
  CacheDriver driver;
  Compressor compressor;
};

}  // namespace kva
