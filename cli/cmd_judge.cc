// `kvanalyze judge`: a language model grades the answers of a run.

#include <fmt/format.h>

#include <memory>
#include <string>

#include "cli/command.h"
#include "cli/judge_options.h"
#include "reports/judge.h"

namespace kva::cli {
namespace {

struct JudgeRun {
  std::string folder;
  JudgeCommand judge;
  bool quiet = false;
};

void run(const JudgeRun& command) {
  Judge judge(command.judge.settled(command.folder));
  Progress progress(command.quiet ? Progress::Mode::kQuiet : Progress::Mode::kAuto);
  const JudgedRows rows = judge_results(command.folder, judge, progress);
  if (!command.quiet)
    fmt::print(
        "{} trials judged by {}, rubric {} ({} requests); {} had been before, {} have no answer to judge\n",
        rows.judged, judge.model(), judge.rubric(), judge.requests(), rows.kept, rows.skipped);
}

}  // namespace

void add_judge(CLI::App& app) {
  auto* command = app.add_subcommand(
      "judge", "Let a model behind an OpenAI-compatible endpoint score the answers of a run");
  auto options = std::make_shared<JudgeRun>();
  command->add_option("results", options->folder, "Folder that holds results.jsonl")->required();
  add_judge_options(*command, options->judge, "--judge", false)->required();
  command->get_option("--judge-model")->required();
  command->add_flag("-q,--quiet", options->quiet, "Print errors only");
  command->callback([options] { run(*options); });
}

}  // namespace kva::cli
