#include "runtime/model/stop_finder.h"

#include <gtest/gtest.h>

namespace kva {
namespace {

TEST(StopFinder, ShowsEverythingWithoutStops) {
  StopFinder finder({""});
  EXPECT_EQ(finder.push("abc"), "abc");
  EXPECT_FALSE(finder.found());
}

TEST(StopFinder, HoldsBackWhatMayBecomeAStop) {
  StopFinder finder({"END", "\n\n"});
  EXPECT_EQ(finder.push("text E"), "text ");
  EXPECT_EQ(finder.push("N"), "");
  EXPECT_EQ(finder.push("TER\n"), "ENTER");
  EXPECT_EQ(finder.push("x"), "\nx");
  EXPECT_EQ(finder.push("EEN"), "E");
  EXPECT_EQ(finder.push("D and more"), "");
  EXPECT_TRUE(finder.found());
  EXPECT_EQ(finder.push("more"), "");
  EXPECT_EQ(finder.finish(), "");
}

TEST(StopFinder, TakesTheFirstOfSeveralAndGivesBackTheRest) {
  StopFinder first({"cd", "bc"});
  EXPECT_EQ(first.push("abcd"), "a");
  EXPECT_TRUE(first.found());
  StopFinder rest({"aab"});
  EXPECT_EQ(rest.push("xaa"), "x");
  EXPECT_EQ(rest.push("a"), "a");
  EXPECT_EQ(rest.finish(), "aa");
  EXPECT_FALSE(rest.found());
}

}  // namespace
}  // namespace kva
