// A cache under a recipe, fed with random projections; what learns has learnt from `sample`, or from random
// pages. Its ledger is compared with the allocator after every step.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "compressors/compressor.h"
#include "tests/compressors/random_sample.h"
#include "tests/runtime/kv/cache_fixture.h"

namespace kva {

// The token at position p has id p % 8.
inline constexpr std::array kIdClasses = {TokenClass::kSpecial, TokenClass::kWord,        TokenClass::kWord,
                                          TokenClass::kWord,    TokenClass::kPunctuation, TokenClass::kWord,
                                          TokenClass::kSpace,   TokenClass::kWord};

inline std::vector<int32_t> read_positions(const KvCache& cache, SequenceId id, int layer, int kv_head) {
  std::vector<int32_t> positions;
  for (int64_t page = 0; page < cache.pages(id, layer, kv_head); ++page) {
    const PageFacts facts = cache.page({id, layer, kv_head, page, Side::kKey});
    for (int32_t t = 0; t < facts.tokens; ++t)
      if (facts.contiguous)
        positions.push_back(static_cast<int32_t>(facts.start) + t);
      else if (facts.biases[static_cast<std::size_t>(t)] != -std::numeric_limits<float>::infinity())
        positions.push_back(facts.positions[static_cast<std::size_t>(t)]);
  }
  return positions;
}

class CompressedCache {
 public:
  CompressedCache(const std::string& text, ThreadPool& pool,
                  CacheShape wanted = {.layers = 4, .group = 3, .head_dim = 16, .type = DType::kF16},
                  const PageSet* sample = nullptr, uint64_t seed = 0,
                  std::shared_ptr<Backend> backend = nullptr)
      : recipe(Recipe::parse(text)),
        shape(wanted),
        driver(options_of(recipe, wanted, std::move(backend)), wanted, pool),
        compressor(recipe, driver.cache, pool, seed,
                   std::make_shared<TokenClasses>(std::vector(kIdClasses.begin(), kIdClasses.end()))) {
    shape.basis = recipe.key_basis();
    if (compressor.needs_sample()) compressor.fit(sample ? *sample : normal_sample(shape, 16, 99));
  }

  void step(const std::vector<CacheDriver::Take>& takes) { after(driver.step(takes)); }
  // What comes after a step of the driver.
  void after(const Batch& batch) {
    std::vector<int32_t> ids;
    for (const BatchSpan& span : batch.spans)
      for (int64_t t = 0; t < span.tokens; ++t)
        ids.push_back(static_cast<int32_t>((span.start + t) % static_cast<int64_t>(kIdClasses.size())));
    compressor.after_step(batch, ids);
    expect_honest();
  }
  void begin_prompt(SequenceId id, int64_t tokens) {
    compressor.begin_prompt(id, driver.cache.tokens(id),
                            std::vector<int32_t>(static_cast<std::size_t>(tokens)));
  }
  void feed(SequenceId id, int64_t tokens, int64_t chunk) {
    for (const int64_t end = driver.cache.tokens(id) + tokens; driver.cache.tokens(id) < end;)
      step({{id, std::min(chunk, end - driver.cache.tokens(id))}});
  }
  // A prompt as a whole.
  void prompt(SequenceId id, int64_t tokens, int64_t chunk) {
    begin_prompt(id, tokens);
    feed(id, tokens, chunk);
    compressor.end_prompt(id);
    expect_honest();
  }
  void free(SequenceId id) {
    compressor.before_free(id);
    driver.cache.free_sequence(id);
    expect_honest();
  }
  void expect_honest() const {
    const ByteLedger ledger = driver.cache.ledger();
    ASSERT_EQ(ledger.held() + ledger.workspace - ledger.beside, driver.cache.backend().allocated_bytes());
    if (ledger.beside > 0) {
      ASSERT_EQ(ledger.beside, driver.cache.host_backend().allocated_bytes());
    }
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

  // Of the tokens that attention still reads, the open page's included.
  std::vector<int32_t> positions(SequenceId id, int layer, int kv_head) const {
    return read_positions(driver.cache, id, layer, kv_head);
  }

  static KvCacheOptions options_of(const Recipe& recipe, const CacheShape& wanted,
                                   std::shared_ptr<Backend> backend) {
    KvCacheOptions options = Compressor::cache_options(recipe, wanted.options());
    options.backend = std::move(backend);
    return options;
  }

  Recipe recipe;
  CacheShape shape;
  CacheDriver driver;
  Compressor compressor;
};

}  // namespace kva
