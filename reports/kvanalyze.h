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
  int64_t max_context = 0;      // tokens of each prompt, 0 for all that the model takes
  int64_t max_tokens = 0;       // tokens generated after each prompt
  int threads = 0;              // 0: one a hardware thread
  std::string device = "auto";  // cpu, cuda, or cuda where there is one and it can
  uint64_t seed = 0;
  bool plots = true;          // PNGs, where gnuplot is installed
  ProgressCallback progress;  // may be empty
};

// Decodes the prompts, analyses the pages and returns report.json as text (docs/formats.md).
std::string analyze_redundancy(const RedundancyRequest& request);

struct AbRequest {
  std::string model;                 // folder, alias or hub id
  std::string text_file;             // UTF-8, at least one window long
  std::vector<std::string> recipes;  // "quant(bits=4)", ...; dense(f16) is the first row anyway
  std::string calibration_file;      // for methods that learn; empty: the built-in general prompts
  std::string output_folder;         // empty: nothing is written
  int64_t context = 2048;            // tokens of a window; the second half is scored
  int64_t tokens = 0;                // scored at most, 0 for all whole windows
  int64_t chunk = 64;                // tokens of a step
  int64_t turns = 1;                 // that the scored half is cut into
  int page_tokens = 64;
  int timing_runs = 3;  // 0: no speed is measured
  bool passkey = false;
  std::vector<double> passkey_depths = {0, 0.25, 0.5, 0.75, 1};
  std::vector<int64_t> passkey_lengths;  // tokens; empty: 512, 1024 and 2048 where the model has positions
  int passkey_trials = 20;
  int threads = 0;              // 0: one a hardware thread
  std::string device = "auto";  // cpu, cuda, or cuda where there is one and it can
  uint64_t seed = 0;
  bool plots = true;          // PNGs, where gnuplot is installed
  ProgressCallback progress;  // may be empty
};

// Judges the recipes side by side on the text and returns report.json as text (docs/formats.md).
std::string compare_recipes(const AbRequest& request);

// Bytes of the dense f16 KV cache of a model folder with this context and batch, from its config.json alone.
int64_t kv_cache_bytes(const std::string& model_folder, int64_t context_tokens, int64_t batch);

}  // namespace kvanalyze
