// A cache on a device: its memory, its sequences, and what it cannot do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "runtime/kv/page_store.h"
#include "tests/error_of.h"
#include "tests/runtime/kv/device_pair.h"

namespace kva {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// ---- Memory -----------------------------------------------------------------------------------------------

TEST_F(DeviceCache, ABackEndCountsTheDevicesMemory) {
  const auto backend = make_device_backend(device);
  EXPECT_EQ(backend->name(), device->name());
  EXPECT_EQ(backend->device(), device.get());
  {
    const Buffer a(*backend, 300, "a test"), b(*backend, 8, "a test");
    EXPECT_EQ(backend->allocated_bytes(), 512 + 256);
    const std::vector<int> sent = {1, 2};
    std::vector<int> found(2);
    backend->upload(a.data(), sent.data(), 8);
    backend->copy(b.data(), a.data(), 8);
    backend->download(found.data(), b.data(), 8);
    EXPECT_EQ(found, sent);
    EXPECT_THAT(error_of([&] { Buffer(*backend, int64_t{1} << 50, "cache pages"); }),
                AllOf(HasSubstr(device->name() + ": out of memory"), HasSubstr("asked for cache pages")));
  }
  EXPECT_EQ(backend->allocated_bytes(), 0);
  EXPECT_EQ(backend->peak_bytes(), 768);
}

// The list of freed slots cannot go through the slots themselves, which the host does not reach.
TEST_F(DeviceCache, FreedSlotsAreUsedAgain) {
  const auto backend = make_device_backend(device), host = make_cpu_backend();
  {
    PageStore store(*backend, *host, 8, 16);
    const auto codec = make_dense_codec(DType::kF32);
    const auto payload = [](std::size_t i) {
      return std::vector<std::byte>(std::size_t{512}, static_cast<std::byte>(i % 251));
    };
    const auto places = [](std::size_t i) {
      return std::vector<std::byte>(48, static_cast<std::byte>(i % 241));
    };
    std::vector<SideId> sides, where;
    for (std::size_t i = 0; i < 300; ++i) {
      sides.push_back(store.add(codec, Lane::kKeys, 16, 8, payload(i)));
      where.push_back(store.add_places(places(i)));
    }
    ByteLedger full;
    store.add_to(full);
    EXPECT_EQ(full.beside, host->allocated_bytes());
    EXPECT_EQ(full.held() - full.beside, backend->allocated_bytes());
    for (std::size_t i = 0; i < 300; i += 3)
      for (std::vector<SideId>* of : {&sides, &where}) store.release((*of)[i]);
    const int64_t slabs = store.live_slabs();
    for (std::size_t i = 0; i < 300; i += 3) {
      sides[i] = store.add(codec, Lane::kKeys, 16, 8, payload(i + 7));
      where[i] = store.add_places(places(i + 7));
    }
    EXPECT_EQ(store.live_slabs(), slabs);
    for (std::size_t i = 0; i < 300; ++i) {
      const std::size_t of = i % 3 == 0 ? i + 7 : i;
      ASSERT_EQ(store.downloaded(sides[i]), payload(of)) << i;
      ASSERT_EQ(std::vector<std::byte>(store.places(where[i]), store.places(where[i]) + 48), places(of)) << i;
    }
    for (const auto& of : {sides, where})
      for (const SideId id : of) store.release(id);
    EXPECT_EQ(store.live_slabs(), 0);
    EXPECT_EQ(backend->allocated_bytes(), 0);
  }
  EXPECT_EQ(host->allocated_bytes(), 0);
}

// ---- Sequences --------------------------------------------------------------------------------------------

TEST_F(DeviceCache, ASequenceIsTheSameInAnyCompany) {
  const CacheShape shape{.layers = 2, .group = 3, .head_dim = 16, .type = DType::kF16};
  const Projections a(shape, 42, 5), b(shape, 25, 6), c(shape, 15, 7);
  const auto alone = [&](const Projections& source, int64_t prompt) {
    CacheDriver driver(on_device(shape.options(), device), shape, pool);
    const SequenceId id = driver.add(source);
    driver.step({{id, prompt}});
    driver.feed(id, 1);
    return driver.output(id);
  };
  Pair together(shape, device, pool);
  const SequenceId ida = together.add(a), idb = together.add(b), idc = together.add(c);
  together.step({{idb, 20}, {ida, 37}, {idc, 0}});
  together.step({{idc, 10}});
  for (int i = 0; i < 5; ++i) together.step({{idc, 1}, {ida, 1}, {idb, 1}});
  EXPECT_EQ(together.there.output(ida), alone(a, 37));
  EXPECT_EQ(together.there.output(idb), alone(b, 20));
  EXPECT_EQ(together.there.output(idc), alone(c, 10));
  for (const SequenceId id : {ida, idb, idc}) together.compare(id, 0x1p-9);
}

TEST_F(DeviceCache, AChunkInTilesIsTheSameInAnyCompany) {
  const CacheShape shape{.layers = 1, .group = 3, .head_dim = 64, .type = DType::kF16};
  const Projections a(shape, 42, 5), b(shape, 90, 6);
  CacheDriver alone(on_device(shape.options(), device), shape, pool);
  const SequenceId id = alone.add(a);
  alone.step({{id, 25}});
  alone.step({{id, 17}});
  CacheDriver together(on_device(shape.options(), device), shape, pool);
  const SequenceId idb = together.add(b), ida = together.add(a);
  together.step({{idb, 60}, {ida, 25}});
  together.step({{ida, 17}, {idb, 30}});
  EXPECT_EQ(together.output(ida), alone.output(id));
}

TEST_F(DeviceCache, ForksShareAndPart) {
  const CacheShape shape{.head_dim = 16};
  const Projections a(shape, 60, 8), b(shape, 60, 9);
  Pair pair(shape, device, pool);
  const SequenceId id = pair.add(a);
  pair.step({{id, 37}});
  const int64_t before = pair.there.cache.ledger().payload;
  SequenceId copy = 0, prefix = 0;
  for (CacheDriver* driver : {&pair.here, &pair.there}) {
    copy = driver->cache.fork_sequence(id);
    driver->follow(copy, b);
    prefix = driver->cache.fork_sequence(id, 16);
    driver->follow(prefix, b);
  }
  EXPECT_EQ(pair.there.cache.ledger().payload, before);
  for (int i = 0; i < 12; ++i) pair.step({{copy, 1}, {id, 1}, {prefix, 2}});
  for (const SequenceId of : {id, copy, prefix}) pair.compare(of);
  for (const SequenceId of : {id, copy, prefix}) {
    pair.there.cache.free_sequence(of);
    expect_honest(pair.there.cache);
  }
  const ByteLedger ledger = pair.there.cache.ledger();
  EXPECT_EQ(ledger.payload + ledger.scales + ledger.slack, 0);
  const SequenceId again = pair.there.add(b);
  EXPECT_EQ(again, 0);
  pair.there.feed(again, 60);
  CacheDriver fresh(shape, pool);
  fresh.feed(fresh.add(b), 60);
  expect_near(pair.there.output(again), fresh.output(0), 1e-5);
}

// ---- What cannot be ---------------------------------------------------------------------------------------

TEST_F(DeviceCache, OutOfMemoryLeavesACacheThatCanBeUsed) {
  if (!device_memory_is_chosen()) GTEST_SKIP() << "all of a device's memory would have to be filled";
  const CacheShape shape{.head_dim = 64};
  const Projections small(shape, 40, 12), large(shape, 4000, 13);
  // Rows of a step are in the same memory.
  const auto tight = device_under_test(256 << 10);
  CacheDriver driver(on_device(shape.options(), tight), shape, pool);
  const SequenceId first = driver.add(small), second = driver.add(large);
  driver.step({{first, 20}});
  const auto until_full = [&] {
    for (;;) driver.step({{second, 8}});
  };
  EXPECT_THAT(error_of(until_full),
              AllOf(HasSubstr("out of memory"), HasSubstr("cache pages"), HasSubstr("shorter context")));
  driver.cache.free_sequence(second);
  expect_honest(driver.cache);
  driver.feed(first, 1);
  CacheDriver here(shape, pool);
  const SequenceId id = here.add(small);
  here.step({{id, 20}});
  here.feed(id, 1);
  expect_near(driver.output(first), here.output(id), 1e-5);
}

TEST_F(DeviceCache, PlansChangeNothingWhereMemoryEnds) {
  if (!device_memory_is_chosen()) GTEST_SKIP() << "all of a device's memory would have to be filled";
  const CacheShape shape{.layers = 4, .head_dim = 64};
  const Projections source(shape, 70, 14);
  const auto tight = device_under_test(640 << 10);
  CacheDriver driver(on_device(shape.options(), tight), shape, pool);
  const SequenceId id = driver.add(source);
  driver.step({{id, 64}});
  const Plan plan = mixed_plan(driver.cache, id, true);
  std::vector<void*> taken;
  while (void* memory = tight->allocate(4096)) taken.push_back(memory);
  const ByteLedger before = driver.cache.ledger();
  EXPECT_THAT(error_of([&] { driver.cache.apply(plan); }), HasSubstr("out of memory"));
  EXPECT_EQ(driver.cache.ledger().payload, before.payload);
  expect_honest(driver.cache);
  EXPECT_TRUE(driver.cache.page({id, 0, 0, 2, Side::kKey}).contiguous);
  for (void* memory : taken) tight->free(memory);
  driver.cache.apply(plan);
  driver.step({{id, 6}});
  EXPECT_FALSE(driver.cache.page({id, 0, 0, 2, Side::kKey}).contiguous);
}

TEST_F(DeviceCache, WhatItCannotDoIsRefusedByName) {
  const auto refused = [&](const CacheShape& shape, const std::string& what) {
    EXPECT_THAT(error_of([&] { KvCache(on_device(shape.options(), device), pool); }),
                AllOf(HasSubstr(what), HasSubstr(device->name()), HasSubstr("use --device cpu")));
  };
  refused({.page_tokens = 257}, "pages of 257 tokens");
  refused({.head_dim = 20}, "heads of 20 numbers");
  refused({.head_dim = 264}, "heads of 264 numbers");
}

}  // namespace
}  // namespace kva
