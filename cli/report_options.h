// Options of the commands that write a report.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "analyzer/redundancy/redundancy.h"
#include "cli/options.h"
#include "reports/progress.h"
#include "reports/run_device.h"
#include "runtime/kv/page_set.h"

namespace kva::cli {

struct FormOptions {
  std::string output_dir = "kvanalyze-report";
  bool no_plots = false;
  std::string plotly;
  bool json = false;
};

struct ReportOptions {
  FormOptions forms;
  int clusters = 0;
  DType products = DType::kF32;
};

// --output-dir, --no-plots, --plotly, --json.
void add_form_options(CLI::App& app, FormOptions& options);
// Those, --clusters and --similarity-dtype: for commands that analyse pages.
void add_report_options(CLI::App& app, ReportOptions& options);

// RenderOptions::extra.
using ExtraFiles = std::function<std::vector<std::string>(const std::string& folder)>;

// Writes the report with `extra_files` and `extra` (report_file.h); then notes of that on stderr, and on
// stdout the summary or, with --json, the whole report. Throws InputError; the folder then holds what it held
// before.
void write_forms(const nlohmann::ordered_json& report, std::map<std::string, std::string> extra_files,
                 const FormOptions& options, bool quiet, Progress& progress, const ExtraFiles& extra = {});

// What stdout is; `width` columns where it is no terminal.
struct Terminal {
  bool color = false;
  int width = 100;
};
Terminal terminal_of_stdout(int width);

// The report on stdout, for people, and where its forms are; folder "": nowhere.
void print_summary(const nlohmann::ordered_json& report, const std::string& folder);

Progress::Mode progress_mode(const CommonOptions& common);

// What a command adds to the report before it is written.
using Addition = std::function<void(nlohmann::ordered_json& report)>;

// Analyses the pages, on `device` where it can be (analysis_backend()), writes the report and prints the
// summary. `facts` are those of run_capture(). Throws InputError; the folder then holds what it held before.
void analyze_and_report(const PageSet& pages, const nlohmann::ordered_json& facts,
                        const ReportOptions& options, const CommonOptions& common, const DeviceChoice& choice,
                        RunDevice device, ThreadPool& pool, Progress& progress, const Addition& add = {});

}  // namespace kva::cli
