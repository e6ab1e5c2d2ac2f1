#include "runtime/io/utf8.h"

#include <gtest/gtest.h>

namespace kva {
namespace {

TEST(Utf8, AcceptsWellFormedText) {
  EXPECT_EQ(first_invalid_utf8(""), std::nullopt);
  EXPECT_EQ(first_invalid_utf8("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbf"), std::nullopt);
}

TEST(Utf8, FindsEveryKindOfIllFormedText) {
  EXPECT_EQ(first_invalid_utf8("ab\x80"), 2u);             // a continuation without a start
  EXPECT_EQ(first_invalid_utf8("a\xc3"), 1u);              // cut short
  EXPECT_EQ(first_invalid_utf8("\xc0\xaf"), 0u);           // overlong
  EXPECT_EQ(first_invalid_utf8("\xed\xa0\x80"), 0u);       // a surrogate
  EXPECT_EQ(first_invalid_utf8("\xf4\x90\x80\x80"), 0u);   // above U+10FFFF
  EXPECT_EQ(first_invalid_utf8("ok\xf0\x9f\x98 ok"), 2u);  // cut short inside
}

TEST(Utf8, ReplacesAsPythonDoes) {
  // bytes.decode("utf-8", errors="replace") of the same bytes.
  EXPECT_EQ(replace_invalid_utf8("a\xf0\x9f\x98z"), "a\xef\xbf\xbdz");
  EXPECT_EQ(replace_invalid_utf8("\xed\xa0\x80"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(replace_invalid_utf8("\xff\xc3\xa9"), "\xef\xbf\xbd\xc3\xa9");
}

TEST(Utf8, EveryCodePointGoesThereAndBack) {
  for (uint32_t point = 0; point < 0x110000; ++point) {
    if (point >= 0xD800 && point < 0xE000) continue;
    std::string text;
    append_utf8(point, text);
    const CodePoint read = first_code_point(text + "z");
    ASSERT_TRUE(read.valid);
    ASSERT_EQ(read.value, point);
    ASSERT_EQ(read.bytes, text.size());
    ASSERT_EQ(finished_utf8(text), text.size());
  }
}

TEST(Utf8, HoldsBackWhatIsUnfinished) {
  EXPECT_EQ(finished_utf8("a\xf0\x9f\x98"), 1u);
  EXPECT_EQ(finished_utf8("a\xe2\x82"), 1u);
  EXPECT_EQ(finished_utf8("a\xc3"), 1u);
  EXPECT_EQ(finished_utf8("a\xed\xa0"), 3u);  // a surrogate: nothing can make it valid
  EXPECT_EQ(finished_utf8("a\xff"), 2u);
  EXPECT_EQ(finished_utf8("a\x80"), 2u);
  EXPECT_EQ(finished_utf8(""), 0u);
}

TEST(Utf8, ShowsTextInOneLine) {
  EXPECT_EQ(quoted_for_error("a\nb\x7f\xff"), "\"a b \xef\xbf\xbd\"");
  EXPECT_EQ(quoted_for_error(std::string(50, 'x')), "\"" + std::string(40, 'x') + "...\"");
}

}  // namespace
}  // namespace kva
