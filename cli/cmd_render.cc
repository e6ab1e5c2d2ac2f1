// `kvanalyze render`: report.md, report.html and plots/ again from report.json.

#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/command.h"
#include "reports/report_file.h"

namespace kva::cli {
namespace {

struct RenderCommand {
  std::string report;
  std::string output_dir;
  bool no_plots = false;
  std::string plotly;
  bool quiet = false;
};

void run(const RenderCommand& command) {
  namespace fs = std::filesystem;
  // A folder stands for the report in it.
  const fs::path path =
      fs::is_directory(command.report) ? fs::path(command.report) / "report.json" : fs::path(command.report);
  const nlohmann::ordered_json report = load_report(path.string());
  const std::string beside = path.has_parent_path() ? path.parent_path().string() : ".";
  const std::string folder = command.output_dir.empty() ? beside : command.output_dir;
  RenderOptions options;
  options.plots = !command.no_plots;
  options.plotly_path = command.plotly;
  for (const std::string& note : write_report(report, folder, options))
    if (!command.quiet) fmt::print(stderr, "kvanalyze: {}\n", note);
  const char* read_first = report.at("kind") == "ab" ? "report.md" : "report.html";
  if (!command.quiet) fmt::print("{}\n", (fs::path(folder) / read_first).string());
}

}  // namespace

void add_render(CLI::App& app) {
  auto* command =
      app.add_subcommand("render", "Make report.md, report.html and plots/ again from report.json");
  auto options = std::make_shared<RenderCommand>();
  command->add_option("report", options->report, "report.json, or the folder that holds it")->required();
  command->add_option("-o,--output-dir", options->output_dir,
                      "Folder to write (default: beside report.json)");
  command->add_flag("--no-plots", options->no_plots, "Leave the PNGs out");
  command->add_option("--plotly", options->plotly,
                      "plotly.min.js to put into report.html (default: the project's cache)");
  command->add_flag("-q,--quiet", options->quiet, "Print errors only");
  command->callback([options] { run(*options); });
}

}  // namespace kva::cli
