// The pages that an analysis reads: every full page of a set of prompts, all layers, both sides. Either kept
// in memory by a one-step run or mapped from a capture folder; the numbers are the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/rope.h"
#include "runtime/kv/kv_cache.h"

namespace kva {

struct CapturedPrompt {
  std::string set;        // "general", "code", ...
  std::string name;       // unique within its set
  int64_t tokens = 0;     // tokens seen, generated ones included
  int64_t pages = 0;      // full pages; the open tail is counted in tokens only
  int64_t generated = 0;  // how many of the tokens the model generated
};

// Where a page comes from. Pages are ordered by prompt and then by position; prompts of one set are adjacent.
struct PageOrigin {
  int prompt = 0;
  int64_t start = 0;  // position of its first token
};

// Where a layer's keys or values stand among the 2 * layers arrays or files of a capture.
constexpr std::size_t side_index(int layer, Side side) {
  return static_cast<std::size_t>(layer) * 2 + (side == Side::kValue ? 1 : 0);
}

// Plain data: views stay valid as long as `owner` lives.
struct PageSet {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int page_tokens = 0;
  DType dtype = DType::kF16;
  KeyBasis key_basis = KeyBasis::kRotated;
  std::optional<Rope> rope;  // absent for learned positions: then "before RoPE" is the same numbers
  std::vector<CapturedPrompt> prompts;
  std::vector<PageOrigin> pages;

  // [side_index(layer, side)] -> values [pages, kv_heads, page_tokens, head_dim], row-major, of type dtype.
  std::vector<const std::byte*> values;
  std::shared_ptr<const void> owner;

  // [layer] -> attention that each token received, summed over queries and the heads of its group: [pages,
  // kv_heads, page_tokens], finite, >= 0, above 0 in sum; valid as long as `owner`. Empty: not measured.
  std::vector<const float*> attention_mass;

  // [side_index(layer, side)] -> what predictions lose where that part alone is in the codes of
  // compressors/part_probe.h: mean KL, nats a token. Empty: not measured.
  std::vector<double> part_losses;

  int64_t page_count() const { return static_cast<int64_t>(pages.size()); }
  int64_t page_values() const { return int64_t{kv_heads} * page_tokens * head_dim; }  // heads joined
  const std::byte* side_values(int layer, Side side) const { return values[side_index(layer, side)]; }
};

}  // namespace kva
