// A report on disk: report.json is canonical; report.md, report.html and plots/ are made from it.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace kva {

struct RenderOptions {
  bool plots = true;        // PNGs through gnuplot, where it is installed
  std::string plotly_path;  // plotly.min.js; empty: the project's cache, then the installed share folder
  std::map<std::string, std::string> extra_files;  // plain name -> text, written beside report.json
  // Writes what else belongs beside report.json into the folder it is given; its notes are added to ours.
  std::function<std::vector<std::string>(const std::string& folder)> extra;
};

// Writes report.json, report.md, report.html, plots/*.png and the extra files into `folder`, which is made
// where it is missing. All are rendered first and then moved in together: the folder holds the old report or
// the new one, never half of each; files that are not the report's stay untouched. Equal reports give equal
// bytes. Returns one line for each thing that could not be made (no gnuplot, no plotly.min.js). Throws
// InputError where the folder cannot be written, Interrupted after Ctrl-C.
std::vector<std::string> write_report(const nlohmann::ordered_json& report, const std::string& folder,
                                      const RenderOptions& options = {});

// Reads and checks a report.json that a stranger may have written: bounded size and depth, version, schema,
// and what the schema cannot say (square matrices, bin counts, heatmap bytes). Throws InputError that names
// file and field.
nlohmann::ordered_json load_report(const std::string& path);

// The checks of load_report on a report in memory; `source` names it in errors.
void check_report(const nlohmann::ordered_json& report, const std::string& source);

}  // namespace kva
