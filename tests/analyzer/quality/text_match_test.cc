#include "analyzer/quality/text_match.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/error_of.h"

namespace kva {
namespace {

using Tokens = std::vector<int32_t>;

Tokens letters(const std::string& text) { return {text.begin(), text.end()}; }

// The generator that the reference program used, too.
Tokens drawn(uint64_t seed, int length, uint64_t vocabulary) {
  Tokens tokens;
  for (int i = 0; i < length; ++i) {
    seed = (seed * 1103515245 + 12345) % (uint64_t{1} << 31);
    tokens.push_back(static_cast<int32_t>((seed >> 16) % vocabulary));
  }
  return tokens;
}

TEST(RougeL, AgreesWithHandComputedCases) {
  // "police the gunman" of Lin 2004, section 3.1, with the words numbered: police killed the gunman /
  // police kill the gunman / the gunman kill police. The subsequences have 3 and 2 of 4 words.
  const Tokens reference = {1, 2, 3, 4};
  EXPECT_DOUBLE_EQ(rouge_l(reference, Tokens{1, 5, 3, 4}), 0.75);
  EXPECT_DOUBLE_EQ(rouge_l(reference, Tokens{3, 4, 5, 1}), 0.5);
  // The longest common subsequence of ABCBDAB and BDCABA has 4 letters (CLRS, section 14.4): 2 * 4 / (7 + 6).
  EXPECT_DOUBLE_EQ(rouge_l(letters("ABCBDAB"), letters("BDCABA")), 8.0 / 13.0);
}

TEST(EditDistance, AgreesWithHandComputedCases) {
  EXPECT_EQ(edit_distance(letters("kitten"), letters("sitting")), 3);
  EXPECT_EQ(edit_distance(letters("intention"), letters("execution")), 5);
  EXPECT_EQ(edit_distance(letters("flaw"), letters("lawn")), 2);
  EXPECT_EQ(edit_distance(letters("abc"), letters("abcd")), 1);
  EXPECT_EQ(edit_distance(letters("abcdef"), letters("azced")), 3);
}

TEST(TextMatch, EndsAreRight) {
  const Tokens none, some = {7, 8, 9};
  EXPECT_EQ(rouge_l(none, none), 1.0);
  EXPECT_EQ(rouge_l(none, some), 0.0);
  EXPECT_EQ(rouge_l(some, none), 0.0);
  EXPECT_EQ(rouge_l(some, some), 1.0);
  EXPECT_EQ(rouge_l(some, Tokens{1, 2}), 0.0);
  EXPECT_EQ(edit_distance(none, none), 0);
  EXPECT_EQ(edit_distance(none, some), 3);
  EXPECT_EQ(edit_distance(some, none), 3);
  EXPECT_EQ(edit_distance(some, some), 0);
  EXPECT_EQ(edit_distance(some, Tokens{1, 2}), 3);
  // A front and a back that overlap in the shorter text.
  EXPECT_EQ(edit_distance(letters("aa"), letters("aaa")), 1);
  EXPECT_DOUBLE_EQ(rouge_l(letters("aa"), letters("aaa")), 0.8);
}

// ROUGE-L of rouge-score 0.1.2 with a tokenizer that splits at blanks, distances of rapidfuzz 3.14.6.
TEST(TextMatch, AgreesWithOtherPrograms) {
  const struct {
    uint64_t seed_a;
    int length_a;
    uint64_t seed_b;
    int length_b;
    uint64_t vocabulary;
    double rouge;
    int64_t distance;
  } cases[] = {
      {1, 40, 2, 40, 4, 0.625, 25},
      {3, 200, 4, 150, 10, 0.4, 149},
      {5, 17, 6, 300, 3, 0.10725552050473186, 283},
      {7, 500, 8, 500, 50, 0.232, 472},
      {9, 64, 9, 100, 20, 0.7804878048780487, 36},
  };
  for (const auto& expected : cases) {
    const Tokens a = drawn(expected.seed_a, expected.length_a, expected.vocabulary);
    const Tokens b = drawn(expected.seed_b, expected.length_b, expected.vocabulary);
    EXPECT_DOUBLE_EQ(rouge_l(a, b), expected.rouge) << expected.seed_a;
    EXPECT_DOUBLE_EQ(rouge_l(b, a), expected.rouge) << expected.seed_a;
    EXPECT_EQ(edit_distance(a, b), expected.distance) << expected.seed_a;
    EXPECT_EQ(edit_distance(b, a), expected.distance) << expected.seed_a;
  }
}

// The definitions as they are written, which take exponential time.
std::size_t plain_subsequence(const Tokens& a, const Tokens& b, std::size_t i, std::size_t j) {
  if (i == a.size() || j == b.size()) return 0;
  if (a[i] == b[j]) return 1 + plain_subsequence(a, b, i + 1, j + 1);
  return std::max(plain_subsequence(a, b, i + 1, j), plain_subsequence(a, b, i, j + 1));
}

int64_t plain_distance(const Tokens& a, const Tokens& b, std::size_t i, std::size_t j) {
  if (i == a.size() || j == b.size()) return static_cast<int64_t>(a.size() - i + b.size() - j);
  if (a[i] == b[j]) return plain_distance(a, b, i + 1, j + 1);
  return 1 + std::min({plain_distance(a, b, i + 1, j), plain_distance(a, b, i, j + 1),
                       plain_distance(a, b, i + 1, j + 1)});
}

TEST(TextMatch, AgreesWithTheDefinitions) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const Tokens a = drawn(seed, static_cast<int>(1 + seed % 7), 3);
    const Tokens b = drawn(seed + 1000, static_cast<int>(1 + seed / 7 % 7), 3);
    const double lcs = static_cast<double>(plain_subsequence(a, b, 0, 0));
    EXPECT_DOUBLE_EQ(rouge_l(a, b), 2 * lcs / static_cast<double>(a.size() + b.size())) << seed;
    EXPECT_EQ(edit_distance(a, b), plain_distance(a, b, 0, 0)) << seed;
  }
}

TEST(TextMatch, RefusesTextsThatTakeTooLong) {
  const Tokens huge(static_cast<std::size_t>(kMaxMatchTokens) + 1, 1), small = {1};
  const std::string expected = "comparing texts: expected at most 65536 tokens, found 65537";
  EXPECT_EQ(error_of([&] { rouge_l(huge, small); }), expected);
  EXPECT_EQ(error_of([&] { edit_distance(small, huge); }), expected);
}

}  // namespace
}  // namespace kva
