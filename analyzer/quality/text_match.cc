#include "analyzer/quality/text_match.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "runtime/error.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

using Tokens = std::span<const int32_t>;

void check_length(Tokens text) {
  if (static_cast<int64_t>(text.size()) > kMaxMatchTokens)
    throw InputError(
        fmt::format("comparing texts: expected at most {} tokens, found {}", kMaxMatchTokens, text.size()));
}

// What two texts have in common at their ends, taken off both.
struct Trimmed {
  std::size_t common = 0;
  Tokens longer;
  Tokens shorter;
};

Trimmed trim(Tokens a, Tokens b) {
  check_length(a);
  check_length(b);
  if (a.size() < b.size()) std::swap(a, b);
  const auto front = static_cast<std::size_t>(std::mismatch(b.begin(), b.end(), a.begin()).first - b.begin());
  a = a.subspan(front);
  b = b.subspan(front);
  const auto back =
      static_cast<std::size_t>(std::mismatch(b.rbegin(), b.rend(), a.rbegin()).first - b.rbegin());
  return {front + back, a.first(a.size() - back), b.first(b.size() - back)};
}

std::size_t common_subsequence(Tokens a, Tokens b) {
  const Trimmed rest = trim(a, b);
  // best[j]: of the tokens of `longer` so far and the first j of `shorter`.
  std::vector<uint32_t> best(rest.shorter.size() + 1, 0);
  for (const int32_t token : rest.longer) {
    throw_if_interrupted();
    uint32_t before = 0;  // best[j] without `token`
    for (std::size_t j = 0; j < rest.shorter.size(); ++j) {
      const uint32_t matched = before + (rest.shorter[j] == token ? 1U : 0U);
      before = best[j + 1];
      best[j + 1] = std::max({matched, before, best[j]});
    }
  }
  return rest.common + best.back();
}

}  // namespace

double rouge_l(Tokens a, Tokens b) {
  if (a.empty() && b.empty()) return 1.0;
  // Precision LCS/|a| and recall LCS/|b| in their harmonic mean.
  return 2.0 * static_cast<double>(common_subsequence(a, b)) / static_cast<double>(a.size() + b.size());
}

int64_t edit_distance(Tokens a, Tokens b) {
  const Trimmed rest = trim(a, b);
  // least[j]: from the tokens of `longer` so far to the first j of `shorter`.
  std::vector<uint32_t> least(rest.shorter.size() + 1);
  for (std::size_t j = 0; j < least.size(); ++j) least[j] = static_cast<uint32_t>(j);
  for (const int32_t token : rest.longer) {
    throw_if_interrupted();
    uint32_t before = least[0]++;  // least[j] without `token`
    for (std::size_t j = 0; j < rest.shorter.size(); ++j) {
      const uint32_t replaced = before + (rest.shorter[j] == token ? 0U : 1U);
      before = least[j + 1];
      least[j + 1] = std::min({replaced, before + 1, least[j] + 1});
    }
  }
  return least.back();
}

}  // namespace kva
