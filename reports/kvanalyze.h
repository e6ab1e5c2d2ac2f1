// The library's facade: what a program of somebody else needs, in plain C++ types. It never calls exit(),
// keeps no global state and writes nothing outside the folder it is given. All functions throw std::exception
// with one line that says what is wrong.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace kvanalyze {

// "0.1.0".
const char* version();

// Called from the working thread, a few times a second at most: `done` of `total` units of a stage
// ("prefill", "similarity", ...).
using ProgressCallback = std::function<void(const std::string& stage, int64_t done, int64_t total)>;

struct RedundancyRequest {
  std::string model;                 // folder, alias or hub id
  std::vector<std::string> prompts;  // empty: the built-in sets
  std::string output_folder;         // empty: nothing is written
  int page_tokens = 16;
  int64_t max_context = 0;  // tokens of each prompt, 0 for all that the model takes
  int64_t max_tokens = 0;   // tokens generated after each prompt
  int threads = 0;          // 0: one a hardware thread
  uint64_t seed = 0;
  bool plots = true;          // PNGs, where gnuplot is installed
  ProgressCallback progress;  // may be empty
};

// Decodes the prompts, analyses the pages and returns report.json as text (docs/formats.md).
std::string analyze_redundancy(const RedundancyRequest& request);

// Bytes of the dense f16 KV cache of a model folder with this context and batch, from its config.json alone.
int64_t kv_cache_bytes(const std::string& model_folder, int64_t context_tokens, int64_t batch);

}  // namespace kvanalyze
