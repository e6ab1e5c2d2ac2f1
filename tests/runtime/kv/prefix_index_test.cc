#include "runtime/kv/prefix_index.h"

#include <gtest/gtest.h>

#include <numeric>

namespace kva {
namespace {

std::vector<int32_t> counting(int32_t first, std::size_t count) {
  std::vector<int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

TEST(PrefixIndex, FindsTheLongestRunOfFullPages) {
  PrefixIndex index(4);
  auto a = counting(0, 10);
  index.add(7, a);
  EXPECT_EQ(index.find(a).tokens, 8) << "the third page is not full";
  EXPECT_EQ(index.find(a).sequence, 7);
  auto b = a;
  b[6] = 99;
  EXPECT_EQ(index.find(b).tokens, 4);
  b[0] = 99;
  EXPECT_EQ(index.find(b).tokens, 0);
  EXPECT_EQ(index.find(counting(0, 3)).tokens, 0);
}

TEST(PrefixIndex, EqualPagesAfterOtherBeginningsAreOtherPages) {
  PrefixIndex index(4);
  index.add(1, counting(0, 8));
  std::vector<int32_t> shifted = counting(4, 4);
  EXPECT_EQ(index.find(shifted).tokens, 0);
}

TEST(PrefixIndex, AnotherHolderTakesOverWhenOneGoes) {
  PrefixIndex index(4);
  index.add(3, counting(0, 12));
  index.add(5, counting(0, 8));
  EXPECT_EQ(index.find(counting(0, 12)).sequence, 3);
  index.remove(3);
  EXPECT_EQ(index.find(counting(0, 12)).sequence, 5);
  EXPECT_EQ(index.find(counting(0, 12)).tokens, 8);
  index.remove(5);
  index.remove(5);
  EXPECT_EQ(index.find(counting(0, 12)).tokens, 0);
}

}  // namespace
}  // namespace kva
