// What a recipe did to a capture's numbers: errors of K and V, and of the output of an attention that needs
// no model.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "compressors/replay.h"
#include "kernels/parallel.h"

namespace kva {

// Sums over numbers x and what is read in their place.
struct NumberError {
  double error_squares = 0;  // of differences
  double squares = 0;        // of x
  double max_abs = 0;        // difference

  void add(const NumberError& other);
  // ‖x - x̂‖ / ‖x‖; 0 where nothing differs, NaN where x is all zeros and something does.
  double relative_l2() const;
};

struct LayerErrors {
  NumberError k, v;  // K in the capture's key basis
  NumberError attention;
};

// Queries of each prompt and KV head, at most.
inline constexpr int64_t kStandInQueries = 64;

// Per layer. Attention: a capture has no queries, so the captured keys stand in for them: those of up to
// kStandInQueries tokens of a prompt, evenly apart, the last token among them. Each attends causally, after
// RoPE and scaled by 1 / sqrt(head_dim), once to the captured pages and once to what is read from the
// replay's. Keys are nearer to themselves than queries are, so this weighs single tokens more than a model
// does.
//
// Sums are f64 and taken in a fixed order: the same bits at any thread count. on_layer gets the number of
// layers done. Throws Interrupted.
std::vector<LayerErrors> replay_errors(const Replay& replay, ThreadPool& pool,
                                       const std::function<void(int64_t layers)>& on_layer);

}  // namespace kva
