// Passkey retrieval from caches under recipes. Query-agnostic: the prompt is in the cache and compressed
// before the question comes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compressors/recipe.h"
#include "reports/evaluated_cache.h"
#include "reports/passkey.h"
#include "reports/progress.h"
#include "runtime/model/tokenizer.h"

namespace kva {

// Answers of one recipe at one length and depth.
struct PasskeyCount {
  int64_t trials = 0;
  int64_t exact = 0;
  int64_t digits = 0;  // right ones, place by place
};

struct PasskeyRow {
  std::string recipe;
  std::vector<PasskeyCount> cells;  // as planned
  double seconds = 0;
};

struct PasskeyResult {
  PasskeyOptions options;  // that it was run with
  int64_t chunk_tokens = 0;
  std::vector<PasskeyCell> cells;  // without their trials
  std::vector<int64_t> tokens;     // of the cells' prompts and questions, summed over the trials
  PasskeyRow base;
  std::vector<PasskeyRow> rows;   // the baseline, then the recipes
  std::vector<bool> informative;  // by cell: the base finds the key often enough
  double seconds = 0;

  // Over the informative cells.
  PasskeyCount total(const PasskeyRow& row) const;
};

// Tokens of one row's prompts and questions.
int64_t passkey_tokens(const std::vector<PasskeyCell>& cells);

// Runs the base and then each of `recipes`, alone in memory: for each trial the prompt in steps of
// `chunk_tokens`, the end of the prompt as recipes see it, the question, and the answer greedily. Bit-equal
// at any thread count. Throws InputError where a recipe does not suit the model, Interrupted.
PasskeyResult run_passkey(std::vector<PasskeyCell> cells, const std::vector<Recipe>& recipes,
                          const PasskeyOptions& options, int64_t chunk_tokens, const Tokenizer& tokenizer,
                          const CacheSetup& setup, Progress& progress);

}  // namespace kva
