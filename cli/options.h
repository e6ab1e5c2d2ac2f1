// Options that several commands share, so that they are spelled and explained once.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "reports/capture_run.h"
#include "reports/provenance.h"

namespace kva::cli {

struct CommonOptions {
  int threads = 0;
  uint64_t seed = 0;
  bool quiet = false;
  bool verbose = false;
  RunStamp stamp;  // taken when the options are added, that is, when the program starts
};

// --threads, --seed, --quiet, --verbose.
void add_common_options(CLI::App& app, CommonOptions& options);

// --model, --cache-dir, --offline, --weights.
CLI::Option* add_model_options(CLI::App& app, ModelOptions& options);

// --device, as run_device.h has it.
CLI::Option* add_device_option(CLI::App& app, std::string& device);

// --prompt-set, --prompt, --prompts-file, --text-file, --prompt-field, --limit, --chat, --max-tokens,
// --max-context.
void add_prompt_options(CLI::App& app, CaptureOptions& options);

// --page-size, --kv-dtype, --key-basis, --batch-size.
void add_cache_options(CLI::App& app, CaptureOptions& options);

// Parses a dtype option's value; `option` names it in the error.
DType dtype_option(const std::string& option, const std::string& value);

// The command line as typed, for provenance.
std::string command_line();

}  // namespace kva::cli
