// Quality of compressed caches on a text: a dense f32 base and all candidates step over the same chunks in
// lockstep, so that the whole distributions are compared and none is stored. docs/measuring.md explains the
// protocol.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "analyzer/quality/quality.h"
#include "compressors/recipe.h"
#include "reports/attention_maps.h"
#include "reports/evaluated_cache.h"
#include "reports/layer_error.h"
#include "reports/progress.h"
#include "reports/windows.h"
#include "runtime/kv/byte_ledger.h"
#include "runtime/model/model_config.h"

namespace kva {

inline constexpr const char* kBaseRecipe = "dense(f32)";
inline constexpr const char* kBaselineRecipe = "dense(f16)";

// A cache's bytes at the last scored token of a window.
struct WindowBytes {
  int64_t tokens = 0;  // seen
  ByteLedger ledger;
  std::vector<double> layers;  // payload and scales of each
};

struct Candidate {
  std::string recipe;
  int64_t chunk_tokens = 0;
  ScoreSeries scores;                      // of every scored token, against the base
  std::vector<WindowBytes> windows;        // one a window
  std::vector<LayerError> layers;          // at the last scored token of each window, summed over them
  CompressorStats stats;                   // of all windows
  double held_over_time = 0;               // bytes, summed over all steps of all windows
  double tokens_over_time = 0;             // tokens seen, summed likewise
  bool bytes_differ = false;               // from the baseline's, after some step
  bool logits_differ = false;              // from the baseline's, some bit of some scored position
  double seconds = 0;                      // of its steps
  std::optional<AttentionMaps> attention;  // of the first window, where it was asked for
};

struct Evaluation {
  Candidate baseline;                 // dense(f16)
  Candidate rechunked;                // the base itself in steps twice as long: the noise floor
  std::vector<Candidate> candidates;  // in the order of the recipes
  double base_seconds = 0;
};

// Throws InputError for layers or heads of a recipe that the model does not have, for a context beyond the
// model's positions and where memory has no room.
void check_evaluation(const ModelConfig& config, const std::vector<Window>& windows,
                      const std::vector<Recipe>& recipes, const WindowOptions& options);

// Scores `windows` (plan_windows()) of the text under every recipe; map_attention: of the baseline and the
// recipes, in the first window. Memory: the caches of one window each,
// and four chunks of logits. Results are bit-equal at any thread count. Throws InputError for a context
// beyond the model's positions and where memory has no room, Interrupted after Ctrl-C.
Evaluation evaluate(std::span<const int32_t> text, const std::vector<Window>& windows,
                    const std::vector<Recipe>& recipes, const WindowOptions& options, const CacheSetup& setup,
                    Progress& progress, bool map_attention = false);

}  // namespace kva
