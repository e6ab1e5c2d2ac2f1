// The A/B that `kvanalyze --model M` ends with: one recipe of each family on the run's own prompts, so that
// what could be freed stands beside what compressing really saves and costs.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "kernels/parallel.h"
#include "reports/capture_run.h"
#include "reports/progress.h"
#include "reports/provenance.h"

namespace kva {

// Quantization at 8 and 4 bits, dedup, merging within a layer and across layers, low rank.
std::vector<std::string> default_recipes();

struct DefaultAb {
  std::vector<std::string> recipes = default_recipes();
  int64_t context = 1024;  // tokens of a window; less where the prompts have fewer
  int64_t windows = 3;     // at most: with the built-in prompts, each scores another set
  uint64_t seed = 0;
};

// The prompts of `capture`, one of each set in turn, joined by blank lines.
std::string joined_prompts(const PromptSource& source);

// Throws InputError where --device cuda asks for a device that cannot hold a cache under each of the recipes:
// said before the capture's long work.
void check_default_ab(const CaptureOptions& capture, const DefaultAb& options);

// Adds the member "ab" and its definitions to a report of kind "redundancy" of the same run. Says on stderr,
// and adds nothing, where the prompts have fewer tokens than a window of 128. The model is read once more,
// with f32 weights. Throws InputError, Interrupted.
void add_default_ab(const CaptureOptions& capture, const DefaultAb& options, const RunStamp& stamp,
                    ThreadPool& pool, Progress& progress, nlohmann::ordered_json& report);

}  // namespace kva
