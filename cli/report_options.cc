#include "cli/report_options.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "reports/redundancy_report.h"
#include "reports/report_file.h"
#include "reports/terminal_summary.h"
#include "runtime/error.h"

namespace kva::cli {

Terminal terminal_of_stdout(int width) {
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  winsize size = {};
  if (terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) width = size.ws_col;
  return {terminal && !std::getenv("NO_COLOR"), width};
}

void print_summary(const nlohmann::ordered_json& report, const std::string& folder) {
  const Terminal terminal =
      terminal_of_stdout(report.contains("ab") || report.contains("compression") ? 120 : 100);
  fmt::print("{}", terminal_summary(report, terminal.color, terminal.width));
  if (!folder.empty()) fmt::print("Report: {0}/report.html   Numbers: {0}/report.json\n", folder);
}

void add_form_options(CLI::App& app, FormOptions& options) {
  const std::string group = "Report";
  app.add_option("-o,--output-dir", options.output_dir, "Folder of the report")
      ->type_name("DIR")
      ->capture_default_str()
      ->group(group);
  app.add_flag("--no-plots", options.no_plots, "Write no PNGs")->group(group);
  app.add_option("--plotly", options.plotly, "plotly.min.js to put into the HTML (default: the fetched one)")
      ->type_name("FILE")
      ->group(group);
  app.add_flag("--json", options.json, "Print report.json instead of the summary")->group(group);
}

void add_report_options(CLI::App& app, ReportOptions& options) {
  add_form_options(app, options.forms);
  app.add_option("--clusters", options.clusters,
                 "Clusters of each layer and side (0: root of the number of pages)")
      ->check(CLI::Range(0, 1000000).description(""))
      ->type_name("N")
      ->capture_default_str()
      ->group("Report");
  const auto set_products = [&options](const std::string& value) {
    options.products = dtype_option("--similarity-dtype", value);
    if (options.products == DType::kF16)
      throw InputError("--similarity-dtype: expected f32 or bf16, found f16");
  };
  app.add_option_function<std::string>("--similarity-dtype", set_products,
                                       "What pages are rounded to to be multiplied; bf16 is faster where the "
                                       "processor has it, and the report states the error")
      ->type_name("f32|bf16")
      ->default_str("f32")
      ->group("Report");
}

Progress::Mode progress_mode(const CommonOptions& common) {
  if (common.quiet) return Progress::Mode::kQuiet;
  return common.verbose ? Progress::Mode::kVerbose : Progress::Mode::kAuto;
}

void write_forms(const nlohmann::ordered_json& report, std::map<std::string, std::string> extra_files,
                 const FormOptions& options, bool quiet, Progress& progress, const ExtraFiles& extra) {
  progress.stage("report", 0, "");
  const auto notes = write_report(report, options.output_dir,
                                  {.plots = !options.no_plots,
                                   .plotly_path = options.plotly,
                                   .extra_files = std::move(extra_files),
                                   .extra = extra});
  progress.finish();
  if (!quiet)
    for (const std::string& note : notes) fmt::print(stderr, "note: {}\n", note);
  if (options.json) {
    fmt::print("{}\n", report.dump(1));
  } else if (!quiet) {
    print_summary(report, options.output_dir);
  }
}

void analyze_and_report(const PageSet& pages, const nlohmann::ordered_json& facts,
                        const ReportOptions& options, const CommonOptions& common, const DeviceChoice& choice,
                        RunDevice device, ThreadPool& pool, Progress& progress, const Addition& add) {
  RedundancyOptions analysis;
  analysis.seed = common.seed;
  analysis.clusters = options.clusters;
  analysis.products = options.products;
  analysis.device = analysis_backend(std::move(device), choice, pages, analysis,
                                     [&](const std::string& line) { progress.say(line); });
  RedundancyReport report = make_redundancy_report(pages, facts, analysis, common.stamp, pool, progress);
  if (add) add(report.json);
  write_forms(report.json, {{"partners.csv", report.partners_csv}}, options.forms, common.quiet, progress);
}

}  // namespace kva::cli
