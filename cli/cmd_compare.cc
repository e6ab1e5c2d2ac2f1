// `kvanalyze compare`: two reports of `ab` or `eval` on the same tokens.

#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/report_options.h"
#include "reports/ab_compare.h"
#include "reports/report_file.h"
#include "runtime/error.h"

namespace kva::cli {
namespace {

struct CompareCommand {
  std::string first;
  std::string second;
  std::vector<std::string> limits;
  bool quiet = false;
};

// A folder stands for the report in it.
std::string report_path(const std::string& given) {
  namespace fs = std::filesystem;
  return fs::is_directory(given) ? (fs::path(given) / "report.json").string() : given;
}

void run(const CompareCommand& command) {
  std::vector<Limit> limits;
  for (const std::string& text : command.limits) limits.push_back(parse_limit(text));
  const std::string first = report_path(command.first), second = report_path(command.second);
  const nlohmann::ordered_json a = load_report(first), b = load_report(second);
  const AbComparison comparison = compare_ab(a, first, b, second);
  if (!command.quiet) {
    const Terminal terminal = terminal_of_stdout(120);
    fmt::print("{}", comparison_text(comparison, terminal.color, terminal.width));
  }
  std::vector<std::string> broken;
  for (const Limit& limit : limits)
    for (const std::string& line : broken_limits(limit, a, b))
      broken.push_back(fmt::format("{} ({})", line, limit.text));
  if (!broken.empty()) throw InputError(fmt::format("--fail-if: {}", fmt::join(broken, "; ")));
}

}  // namespace

void add_compare(CLI::App& app) {
  auto* command = app.add_subcommand("compare", "Two reports of ab or eval: what changed, with intervals");
  auto job = std::make_shared<CompareCommand>();
  command->add_option("first", job->first, "report.json, or the folder that holds it")->required();
  command->add_option("second", job->second, "The report to judge, on the same tokens and model")->required();
  command
      ->add_option("--fail-if", job->limits,
                   "Exit with 1 where a row of the second is so: 'kl_mean>0.01', or against the first: "
                   "'delta.kl_mean>0.001'; repeatable")
      ->allow_extra_args(false)
      ->type_name("CONDITION");
  command->add_flag("-q,--quiet", job->quiet, "Print errors only");
  command->callback([job] { run(*job); });
}

}  // namespace kva::cli
