// Options of the commands that let a judge score answers.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "reports/judge.h"

namespace kva::cli {

struct JudgeCommand {
  JudgeOptions options;
  std::string cache;  // folder; empty: judge-cache in the results

  // With the cache's folder settled.
  JudgeOptions settled(const std::string& results_folder) const;
};

// --judge, --judge-model, --judge-cache, --timeout, --attempts, --requests-per-minute; with `prefix` the last
// three begin with --judge-. `names` are those of --judge. Returns --judge.
CLI::Option* add_judge_options(CLI::App& app, JudgeCommand& command, const std::string& names, bool prefix);

}  // namespace kva::cli
