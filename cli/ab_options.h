// Options of the commands that judge recipes on a text.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "cli/options.h"
#include "cli/report_options.h"
#include "reports/ab_run.h"

namespace kva::cli {

struct AbCommand {
  AbOptions run;
  CommonOptions common;
  FormOptions forms = {.output_dir = "kvanalyze-ab"};
  bool require_effect = false;
  bool no_timing = false;
  bool save_attention = false;
};

// Everything but --recipe.
void add_ab_options(CLI::App& app, AbCommand& command);

// Runs, writes the report, prints the summary. Throws InputError (the folder then holds what it held before),
// also where --require-effect finds a recipe without effect (after the report is written).
void run_ab_command(AbCommand& command);

}  // namespace kva::cli
