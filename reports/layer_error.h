// How far a compressed cache's keys and values are from a dense one's, layer by layer.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/parallel.h"
#include "runtime/kv/kv_cache.h"

namespace kva {

// Sums over the tokens of a layer, all its KV heads; those of several windows add up.
struct LayerError {
  double k_difference = 0;  // squared, of the tokens that attention still reads from the candidate
  double k_norm = 0;        // squared, of the base's keys of those tokens
  double v_difference = 0;
  double v_norm = 0;
  int64_t tokens = 0;   // of the base, a token of each KV head counted apart
  int64_t missing = 0;  // of those, dropped, hidden or folded into others by the candidate

  // ‖candidate − base‖ ÷ ‖base‖ over the tokens still read; NaN where there are none or the base is all
  // zeros.
  double k() const;
  double v() const;
  double missing_share() const;
};

// Adds to layers[layer] what the candidate's sequence, tail included, differs by from the base's: of the same
// tokens, pages as attention reads them, keys after the position encoding; with cache-relative positions as
// the latest query sees them: turned by how many read tokens they are behind it. A token is compared with the
// one that stood at its position; a survivor into which others were folded is compared as it now is. The base
// holds every token, keys rotated. `layers` is empty or has one entry a layer. Bit-equal at any thread count.
void add_layer_errors(const KvCache& base, SequenceId base_sequence, const KvCache& candidate,
                      SequenceId sequence, ThreadPool& pool, std::vector<LayerError>& layers);

}  // namespace kva
