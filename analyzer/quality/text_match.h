// How far one generated text follows another, token by token. Both figures take time in proportion to the
// product of the lengths and memory in proportion to the shorter; what the texts share at their ends costs
// nothing.
#pragma once

#include <cstdint>
#include <span>

namespace kva {

// The longest text that is compared: two of them with nothing in common take some seconds.
inline constexpr int64_t kMaxMatchTokens = 65536;

// ROUGE-L: F1 of the longest common subsequence (C.-Y. Lin, ROUGE: A Package for Automatic Evaluation of
// Summaries, 2004, section 3, with beta = 1), in [0, 1]. Symmetric. Two empty texts are equal: 1; one empty
// text: 0. Throws InputError for more than kMaxMatchTokens tokens, Interrupted.
double rouge_l(std::span<const int32_t> a, std::span<const int32_t> b);

// The fewest insertions, deletions and replacements of single tokens that turn a into b (Levenshtein 1966).
// Throws as rouge_l() does.
int64_t edit_distance(std::span<const int32_t> a, std::span<const int32_t> b);

}  // namespace kva
