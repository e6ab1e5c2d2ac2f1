// `kvanalyze dashboard`: one HTML page, a CSV, PNGs and a comparison from the trials of a run.

#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>

#include "cli/command.h"
#include "reports/dashboard.h"

namespace kva::cli {
namespace {

struct DashboardCommand {
  std::string folder;
  bool no_plots = false;
  std::string plotly;
  bool quiet = false;
};

void run(const DashboardCommand& command) {
  const auto notes = write_dashboard(command.folder, {!command.no_plots, command.plotly});
  if (command.quiet) return;
  for (const std::string& note : notes) fmt::print(stderr, "kvanalyze: {}\n", note);
  const std::filesystem::path folder = command.folder;
  fmt::print("{}\n{}\n", (folder / "dashboard.html").string(), (folder / "comparison.md").string());
}

}  // namespace

void add_dashboard(CLI::App& app) {
  auto* command = app.add_subcommand(
      "dashboard", "Make dashboard.html, dashboard.csv, comparison.md and plots/ from the results of a run");
  auto options = std::make_shared<DashboardCommand>();
  command->add_option("results", options->folder, "Folder that holds results.jsonl")->required();
  command->add_flag("--no-plots", options->no_plots, "Leave the PNGs out");
  command->add_option("--plotly", options->plotly,
                      "plotly.min.js to put into dashboard.html (default: the project's cache)");
  command->add_flag("-q,--quiet", options->quiet, "Print errors only");
  command->callback([options] { run(*options); });
}

}  // namespace kva::cli
