#include "runtime/kv/page_store.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

namespace kva {
namespace {

class PageStoreTest : public testing::Test {
 protected:
  static constexpr int64_t kHeadDim = 20;
  static constexpr int64_t kPageTokens = 16;

  SideId allocate(const std::shared_ptr<const SideCodec>& codec) {
    return store.allocate(codec, Lane::kKeys);
  }

  // The ledger after every operation: equal to the allocator, each figure what the sides imply.
  ByteLedger checked_ledger() const {
    ByteLedger ledger;
    store.add_to(ledger);
    EXPECT_EQ(ledger.held(), backend->allocated_bytes());
    EXPECT_GE(ledger.slack, 0);
    return ledger;
  }

  std::unique_ptr<Backend> backend = make_cpu_backend();
  PageStore store{*backend, *backend, kHeadDim, kPageTokens};
  std::shared_ptr<const SideCodec> f16 = make_dense_codec(DType::kF16);
  std::shared_ptr<const SideCodec> f32 = make_dense_codec(DType::kF32);
};

TEST_F(PageStoreTest, CountsWrittenTokensAsPayloadAndTheRestAsSlack) {
  EXPECT_EQ(checked_ledger().payload, 0);
  const SideId a = allocate(f16);
  EXPECT_EQ(checked_ledger().payload, 0);
  store.set_tokens(a, 5);
  EXPECT_EQ(checked_ledger().payload, 5 * kHeadDim * 2);
  const SideId b = allocate(f32);
  store.set_tokens(b, kPageTokens);
  EXPECT_EQ(checked_ledger().payload, 5 * kHeadDim * 2 + kPageTokens * kHeadDim * 4);
  EXPECT_EQ(store.live_slabs(), 2);  // one a slot size
  store.set_tokens(a, 4);
  EXPECT_EQ(checked_ledger().payload, 4 * kHeadDim * 2 + kPageTokens * kHeadDim * 4);
}

TEST_F(PageStoreTest, SharingCostsNoPayloadAndTheLastReferenceFrees) {
  const SideId id = allocate(f16);
  store.set_tokens(id, kPageTokens);
  const ByteLedger before = checked_ledger();
  store.retain(id);
  store.retain(id);
  EXPECT_EQ(store.references(id), 3);
  EXPECT_EQ(checked_ledger().held(), before.held());
  EXPECT_EQ(checked_ledger().payload, before.payload);
  store.release(id);
  store.release(id);
  EXPECT_EQ(checked_ledger().payload, before.payload);
  store.release(id);
  EXPECT_EQ(checked_ledger().payload, 0);
  EXPECT_EQ(store.live_sides(), 0);
  EXPECT_EQ(store.live_slabs(), 0);
}

TEST_F(PageStoreTest, CopyOnWriteLeavesTheOtherReferenceUntouched) {
  const SideId id = allocate(f32);
  store.set_tokens(id, 3);
  EXPECT_EQ(store.make_unique(id), id);
  std::memset(store.writable_payload(id), 7, static_cast<std::size_t>(kPageTokens * kHeadDim * 4));
  store.retain(id);
  const SideId copy = store.make_unique(id);
  EXPECT_NE(copy, id);
  EXPECT_EQ(store.references(id), 1);
  EXPECT_EQ(store.references(copy), 1);
  EXPECT_EQ(store.tokens(copy), 3);
  EXPECT_EQ(checked_ledger().payload, 2 * 3 * kHeadDim * 4);
  EXPECT_EQ(store.data(copy).payload[0], std::byte{7});
  *store.writable_payload(copy) = std::byte{9};
  EXPECT_EQ(store.data(id).payload[0], std::byte{7});
}

TEST_F(PageStoreTest, EmptySlabsGoBackWhateverTheOrder) {
  // Enough sides for many slabs; freed in three interleaved passes, then used again.
  std::vector<SideId> ids;
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 2000; ++i) {
      ids.push_back(allocate(f16));
      store.set_tokens(ids.back(), kPageTokens);
      std::memset(store.writable_payload(ids.back()), i & 0xff, kPageTokens * kHeadDim * 2);
    }
    const int64_t full = checked_ledger().held();
    const int64_t slabs = store.live_slabs();
    EXPECT_GT(slabs, 10);
    for (std::size_t i = 0; i < ids.size(); ++i)
      ASSERT_EQ(store.data(ids[i]).payload[kPageTokens * kHeadDim * 2 - 1], static_cast<std::byte>(i & 0xff));
    for (std::size_t pass = 0; pass < 3; ++pass) {
      for (std::size_t i = pass; i < ids.size(); i += 3) store.release(ids[i]);
      checked_ledger();
    }
    ids.clear();
    EXPECT_EQ(store.live_slabs(), 0);
    EXPECT_EQ(checked_ledger().payload + checked_ledger().slack, 0);
    EXPECT_LT(checked_ledger().held(), full / 4);  // the side table keeps its capacity, and says so
  }
}

TEST_F(PageStoreTest, SlackIsASmallPartOfALargeStore) {
  for (int i = 0; i < 5000; ++i) store.set_tokens(allocate(f16), kPageTokens);
  const ByteLedger ledger = checked_ledger();
  EXPECT_LE(ledger.slack, ledger.payload / 128 + (16 << 10));
}

TEST_F(PageStoreTest, AddedSidesHoldTheirBaseAndItsCodec) {
  const auto holders = f32.use_count();
  const std::vector<std::byte> shared(3 * kHeadDim * 4, std::byte{5});
  const std::vector<std::byte> own(2 * kHeadDim * 2, std::byte{6});
  const SideId base = store.add(f32, Lane::kShared, 3, kHeadDim, shared);
  const SideId a = store.add(f16, Lane::kKeys, 2, kHeadDim, own, base);
  const SideId b = store.add(f16, Lane::kValues, 2, kHeadDim, own, base);
  EXPECT_EQ(store.references(base), 3);
  EXPECT_EQ(store.data(a).base[0], std::byte{5});
  EXPECT_EQ(store.data(a).base_codec, f32.get());
  EXPECT_EQ(checked_ledger().payload, 3 * kHeadDim * 4 + 2 * 2 * kHeadDim * 2);
  store.release(base);
  store.release(a);
  EXPECT_EQ(store.references(base), 1) << "b still builds on it";
  store.release(b);
  EXPECT_EQ(store.live_sides(), 0);
  EXPECT_EQ(checked_ledger().payload, 0);
  EXPECT_EQ(f32.use_count(), holders) << "a codec goes with its last side";
}

TEST_F(PageStoreTest, SidesWithoutPayloadTakeNoSlot) {
  const SideId base = store.add(f32, Lane::kShared, 1, kHeadDim, std::vector<std::byte>(kHeadDim * 4));
  const int64_t slabs = store.live_slabs();
  const SideId empty = store.add(f16, Lane::kKeys, 0, kHeadDim, {}, base);
  EXPECT_EQ(store.live_slabs(), slabs);
  EXPECT_EQ(store.bytes(empty), 0);
  checked_ledger();
  store.release(empty);
  store.release(base);
  checked_ledger();
}

TEST_F(PageStoreTest, PlacesCountAsTables) {
  const ByteLedger before = checked_ledger();
  const SideId id = store.add_places(std::vector<std::byte>(48));
  const ByteLedger after = checked_ledger();
  EXPECT_EQ(after.payload, before.payload);
  EXPECT_GE(after.tables, before.tables + 48);
  store.release(id);
  EXPECT_EQ(checked_ledger().slack, before.slack);
}

using PageStoreDeath = PageStoreTest;

TEST_F(PageStoreDeath, MisuseIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const SideId id = allocate(f16);
  store.retain(id);
  EXPECT_EXIT(store.writable_payload(id), testing::ExitedWithCode(2), "copied before it is written");
  store.release(id);
  store.release(id);
  EXPECT_EXIT(store.release(id), testing::ExitedWithCode(2), "no such page side");
}

}  // namespace
}  // namespace kva
