// Pages that are read while the cache goes on.
#include "runtime/kv/page_snapshot.h"

#include <gtest/gtest.h>

#include <future>
#include <vector>

#include "tests/kernels/lane_device.h"
#include "tests/runtime/kv/cache_fixture.h"

namespace kva {
namespace {

// Whether pages are on a device.
class PageSnapshotTest : public testing::TestWithParam<bool> {
 protected:
  PageSnapshotTest() {
    options = shape.options();
    if (GetParam()) options.backend = make_device_backend(make_lane_device());
  }

  // As the cache has them.
  std::vector<float> rows(const KvCache& cache, SequenceId id, int layer, Side side, int64_t pages) const {
    const int64_t head_values = int64_t{shape.page_tokens} * shape.head_dim;
    std::vector<float> found(static_cast<std::size_t>(pages * shape.kv_heads * head_values));
    float* to = found.data();
    for (int64_t page = 0; page < pages; ++page)
      for (int head = 0; head < shape.kv_heads; ++head, to += head_values)
        cache.read_page(id, layer, head, page, side, {to, shape.page_tokens, shape.head_dim});
    return found;
  }

  ThreadPool pool{2};
  CacheShape shape{
      .layers = 2, .kv_heads = 2, .group = 1, .head_dim = 16, .page_tokens = 8, .type = DType::kF16};
  KvCacheOptions options;
};

TEST_P(PageSnapshotTest, OutlivesItsSequenceBesideOthers) {
  const Projections source(shape, 28, 1), other(shape, 60, 2);
  CacheDriver driver(options, shape, pool);
  const SequenceId id = driver.add(source);
  driver.step({{id, 28}});
  std::vector<std::vector<float>> expected;
  for (int layer = 0; layer < shape.layers; ++layer)
    for (const Side side : {Side::kKey, Side::kValue})
      expected.push_back(rows(driver.cache, id, layer, side, 3));
  auto snapshot = driver.cache.snapshot(id);
  ASSERT_EQ(snapshot->pages(), 3);
  driver.cache.free_sequence(id);
  const ByteLedger held = driver.cache.ledger();
  EXPECT_GE(held.payload, 3 * 2 * 2 * 2 * int64_t{shape.page_tokens} * shape.head_dim * 2);

  std::vector<std::vector<float>> found;
  std::future<void> reading = std::async(std::launch::async, [&] {
    for (int layer = 0; layer < shape.layers; ++layer)
      for (const Side side : {Side::kKey, Side::kValue}) {
        found.emplace_back(expected.front().size());
        const int64_t first_values = 2 * int64_t{shape.kv_heads} * shape.page_tokens * shape.head_dim;
        snapshot->read(layer, side, 0, 2, found.back().data());
        snapshot->read(layer, side, 2, 1, found.back().data() + first_values);
      }
  });
  const SequenceId next = driver.add(other);
  driver.feed(next, 3);
  reading.get();
  EXPECT_EQ(found, expected);

  driver.cache.free_sequence(next);
  snapshot.reset();
  EXPECT_EQ(driver.cache.ledger().payload, 0);
}

INSTANTIATE_TEST_SUITE_P(Memory, PageSnapshotTest, testing::Bool(),
                         [](const auto& where) { return std::string(where.param ? "Device" : "Host"); });

}  // namespace
}  // namespace kva
