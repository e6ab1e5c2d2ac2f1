// Options of the commands that analyse pages and write a report.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "analyzer/redundancy/redundancy.h"
#include "cli/options.h"
#include "reports/progress.h"
#include "runtime/kv/page_set.h"

namespace kva::cli {

struct ReportOptions {
  std::string output_dir = "kvanalyze-report";
  bool no_plots = false;
  std::string plotly;
  int clusters = 0;
  bool json = false;
};

// --output-dir, --clusters, --no-plots, --plotly, --json.
void add_report_options(CLI::App& app, ReportOptions& options);

Progress::Mode progress_mode(const CommonOptions& common);

// What is left to say of a report in its folder: notes of writing it on stderr, and on stdout the summary or,
// with `json`, the whole report.
void print_report(const nlohmann::ordered_json& report, const std::vector<std::string>& notes,
                  const std::string& folder, bool json, bool quiet);

// Analyses the pages, writes the report and prints the summary. `facts` are those of run_capture(). Throws
// InputError; the folder then holds what it held before.
void analyze_and_report(const PageSet& pages, const nlohmann::ordered_json& facts,
                        const ReportOptions& options, const CommonOptions& common, ThreadPool& pool,
                        Progress& progress);

}  // namespace kva::cli
