// The A/B run: recipes judged on a text against one base, by bytes, quality and time, in one report.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "kernels/parallel.h"
#include "reports/attention_maps.h"
#include "reports/model_run.h"
#include "reports/passkey.h"
#include "reports/progress.h"
#include "reports/provenance.h"
#include "reports/windows.h"

namespace kva {

// Everything that decides a result; printed into the report as it is.
struct AbOptions {
  ModelOptions model = {.weights = "f32"};
  std::string text_file;             // UTF-8
  std::optional<std::string> text;   // instead of the file's; text_file is then its name
  std::vector<std::string> recipes;  // the baseline dense(f16) is always the first row
  std::string calibration_file;      // UTF-8, for methods that learn; empty: the built-in general prompts
  WindowOptions windows;
  PasskeyOptions passkey;
  int page_tokens = 64;
  uint64_t seed = 0;
  bool timing = true;
  int timing_runs = 3;  // after one that warms up
};

// Returns report.json, of kind "ab" (docs/formats.md). Says on stderr which recipes had no effect. Throws
// InputError for recipes, texts and models that cannot be used, before any weight is read where it can tell;
// Interrupted after Ctrl-C. attention: where it is given, becomes where each row's heads look in the first
// window.
nlohmann::ordered_json run_ab(const AbOptions& options, const RunStamp& stamp, ThreadPool& pool,
                              Progress& progress, std::vector<AttentionMaps>* attention = nullptr);

// Recipes of the report's rows whose effect is "no effect".
std::vector<std::string> without_effect(const nlohmann::ordered_json& report);

}  // namespace kva
