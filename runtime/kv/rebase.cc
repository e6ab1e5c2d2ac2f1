#include "runtime/kv/rebase.h"

#include <vector>

namespace kva {
namespace {

// What token t of a page is turned by in a basis.
int64_t turn_in(KeyBasis basis, int64_t start, int64_t t) {
  switch (basis) {
    case KeyBasis::kPlain: return 0;
    case KeyBasis::kRotated: return start + t;
    case KeyBasis::kPageRelative: return t;
  }
  return 0;
}

}  // namespace

void rebase_keys(const Rope& rope, KeyBasis from, KeyBasis to, int64_t start, int64_t tokens,
                 int64_t kv_heads, float* values) {
  if (from == to) return;
  const int64_t dim = rope.head_dim();
  std::vector<float> turns(static_cast<std::size_t>(rope.rotary_dim()));
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t turn = turn_in(to, start, t) - turn_in(from, start, t);
    if (turn == 0) continue;
    rope.turns_at(turn, turns.data());
    // Token t of all heads.
    const MatView<float> rows(values + t * dim, kv_heads, dim, tokens * dim);
    rope.rotate_by(rows, turns.data(), 0);
  }
}

}  // namespace kva
