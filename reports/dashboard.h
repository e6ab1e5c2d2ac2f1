// The dashboard of a results folder, from the trials in its results.jsonl.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace kva {

struct DashboardOptions {
  bool plots = true;        // PNGs through gnuplot, where it is installed
  std::string plotly_path;  // plotly.min.js; empty: the usual places (plotly.h)
};

// Writes dashboard.html (one file, complete in itself), dashboard.csv (a line a trial), comparison.md and
// plots/dashboard_*.png into the folder: all of them or none. Other files stay as they are. Returns one line
// for each thing that could not be made or that a reader should know. Throws InputError where results.jsonl
// is missing or holds a line that is no trial, or where the folder cannot be written; Interrupted.
std::vector<std::string> write_dashboard(const std::filesystem::path& results_folder,
                                         const DashboardOptions& options = {});

}  // namespace kva
