// Folding the tokens of a page that are to go into those that stay. Values are folded and keys left in place
// (a rotated key has a position and must not move) unless asked otherwise.
//
//   value     a token that goes is averaged into the surviving key nearest to its own by cosine, all of them
//             weighted by attention mass (the simplest rule, as kvpress' MergingPress)
//   kvmerger  (arXiv 2407.08454) neighbours whose keys have a cosine over the threshold form groups; the one
//             with most mass is the pivot p and stays, token i enters with the weight
//             exp(-‖k_p - k_i‖² / 2σ²), σ² being the mean of ‖k_p - k_i‖² over the group's other tokens (our
//             choice: it needs no unit). `keep` sets how many groups there are: the most similar neighbours
//             are joined first, and groups with least mass are dropped where too few are similar.
//   d2o       (arXiv 2406.13035) a token that goes is merged into its most similar survivor, at cosine u,
//             where u is at least a running threshold, else dropped. The threshold starts as the mean u of
//             the first page's tokens and then follows τ = β u + (1 - β) τ. Weights e^u against e of the
//             survivor. D2O's budgets by layer are the recipe's affair.
//   cam       (CaM, ICML 2024) v / m is added to the next m survivors. The paper does so with probability
//             clamp(A / mean A of those, 0, 1); here that probability scales what is added, so that the same
//             page gives the same bytes. Sums, not means: values grow, and nobody stands for more tokens.
//
// Sinks take part in none of it. The survivors are those of evict, except kvmerger's.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "compressors/token_page.h"

namespace kva {

enum class MergeRule { kValue, kKvMerger, kD2o, kCam };

struct MergeOptions {
  MergeRule rule = MergeRule::kValue;
  double keep = 0.5;
  int64_t sinks = 0;
  bool bias = true;         // survivors stand for all that was merged into them
  bool keys = false;        // fold keys too, by the same weights; not for cam
  double threshold = 0.75;  // kvmerger
  double beta = 0.7;        // d2o
  int64_t next = 16;        // cam: m
};

struct MergedPage {
  std::vector<int64_t> kept;   // tokens of the page, ascending
  std::vector<double> counts;  // tokens that each stands for
  std::vector<float> k, v;     // [kept.size(), width]
  int64_t merged = 0;          // tokens folded into others
  int64_t dropped = 0;         // gone without a trace
};

// `d2o_threshold` is the table's running threshold, none before its first page; other rules leave it alone.
MergedPage merge_tokens(const TokenPage& page, const MergeOptions& options,
                        std::optional<double>& d2o_threshold);

}  // namespace kva
