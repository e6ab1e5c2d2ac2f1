// How long a context a memory holds under a recipe, found by filling it.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "kernels/parallel.h"
#include "reports/model_run.h"
#include "reports/progress.h"
#include "reports/tables.h"

namespace kva {

struct MaxContextOptions {
  ModelOptions model;
  std::vector<std::string> recipes;  // dense(f16) is the first row anyway
  std::string text_file;             // UTF-8, read again and again; empty: the built-in general prompts
  int64_t memory_bytes =
      0;              // of weights, cache and workspace together; 0: what the machine, or the GPU, has free
  int64_t batch = 1;  // sequences of that context at once, each with pages of its own
  int page_tokens = 64;
  int64_t chunk = 64;  // tokens of a step, in which the answer is exact
  uint64_t seed = 0;
};

// {"model", "device", "memory_bytes", "weight_bytes", "batch", "positions", "chunk", "rows": [{"recipe",
// "context", "limit": "memory" or "positions", "cache_bytes", "workspace_bytes", "bytes_per_token",
// "sequences"}], "device_memory"}: the longest context of each recipe, what the cache then holds, the
// decoder's and the cache's workspace, and how many sequences of that length the memory has room for at those
// bytes. Throws InputError where a recipe or a model cannot be, where there is not so much memory, and where
// not one step fits; Interrupted.
nlohmann::ordered_json find_max_context(const MaxContextOptions& options, ThreadPool& pool,
                                        Progress& progress);

Table max_context_table(const nlohmann::ordered_json& result);

}  // namespace kva
