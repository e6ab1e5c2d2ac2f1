// A cache whose pages are on a device, beside the same cache on the CPU.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "tests/runtime/kv/cache_fixture.h"
#include "tests/runtime/kv/device_under_test.h"

namespace kva {

inline KvCacheOptions on_device(KvCacheOptions options, std::shared_ptr<DeviceOps> device) {
  options.backend = make_device_backend(std::move(device));
  return options;
}

class DeviceCache : public testing::Test {
 protected:
  void SetUp() override {
    if (!device) GTEST_SKIP() << "no device";
  }
  std::shared_ptr<DeviceOps> device = device_under_test();
  ThreadPool pool{1};
};

inline void expect_honest(const KvCache& cache) {
  const ByteLedger ledger = cache.ledger();
  ASSERT_EQ(ledger.held() + ledger.workspace - ledger.beside, cache.backend().allocated_bytes());
  ASSERT_EQ(ledger.beside, cache.host_backend().allocated_bytes());
  ASSERT_GE(ledger.slack, 0);
  ASSERT_GE(ledger.peak, ledger.held());
}

// Sums in another order, of numbers up to about 4.
inline void expect_near(const std::vector<float>& got, const std::vector<float>& expected, double within) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], within) << "number " << i;
}

// Both caches, fed alike.
struct Pair {
  Pair(const CacheShape& shape, const std::shared_ptr<DeviceOps>& device, ThreadPool& pool)
      : here(shape, pool), there(on_device(shape.options(), device), shape, pool) {}

  SequenceId add(const Projections& source) {
    const SequenceId id = here.add(source);
    EXPECT_EQ(there.add(source), id);
    return id;
  }
  void step(const std::vector<CacheDriver::Take>& takes) {
    here.step(takes);
    there.step(takes);
    expect_honest(there.cache);
  }
  void apply(const Plan& plan) {
    here.cache.apply(plan);
    there.cache.apply(plan);
    expect_honest(there.cache);
  }
  void compare(SequenceId id, double within = 1e-5) const {
    expect_near(there.output(id), here.output(id), within);
  }

  CacheDriver here, there;
};

inline NewSide dense_side(const KvCache& cache, const PageAddress& at, const std::vector<int64_t>& tokens,
                          DType type) {
  const int64_t dim = cache.options().head_dim;
  const int64_t count = cache.page(at).tokens;
  std::vector<float> rows(static_cast<std::size_t>(count * dim)), kept;
  cache.read_page(at.sequence, at.layer, at.kv_head, at.page, at.side, {rows.data(), count, dim});
  for (const int64_t t : tokens)
    kept.insert(kept.end(), rows.begin() + t * dim, rows.begin() + (t + 1) * dim);
  NewSide side{.codec = make_dense_codec(type),
               .lane = at.side == Side::kKey ? Lane::kKeys : Lane::kValues,
               .tokens = std::ssize(tokens),
               .width = dim};
  side.payload.resize(static_cast<std::size_t>(side.codec->bytes(side.tokens, dim)));
  side.codec->encode({kept.data(), side.tokens, dim}, {}, side.payload.data());
  return side;
}

// Pages 0 and 1 of every table in another type, page 2 with the tokens that are left and biases.
inline Plan mixed_plan(const KvCache& cache, SequenceId id, bool biased) {
  Plan plan;
  std::vector<int64_t> all(16);
  std::iota(all.begin(), all.end(), 0);
  for (int layer = 0; layer < cache.options().layers; ++layer)
    for (int head = 0; head < cache.options().kv_heads; ++head) {
      for (const int64_t page : {0, 1})
        for (const Side side : {Side::kKey, Side::kValue}) {
          const PageAddress at{id, layer, head, page, side};
          plan.edits.push_back({.at = at, .new_side = static_cast<int>(plan.sides.size())});
          plan.sides.push_back(dense_side(cache, at, all, page == 0 ? DType::kF16 : DType::kBF16));
        }
      PlanRewrite rewrite{.sequence = id, .layer = layer, .kv_head = head, .first_page = 2, .pages = 1};
      rewrite.k = static_cast<int>(plan.sides.size());
      rewrite.v = rewrite.k + 1;
      rewrite.positions = {33, 35, 40, 46};
      if (biased) rewrite.biases = {0.5f, -std::numeric_limits<float>::infinity(), 0.0f, std::log(3.0f)};
      for (const Side side : {Side::kKey, Side::kValue})
        plan.sides.push_back(dense_side(cache, {id, layer, head, 2, side}, {1, 3, 8, 14}, DType::kF32));
      plan.rewrites.push_back(rewrite);
    }
  return plan;
}

}  // namespace kva
