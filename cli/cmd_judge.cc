// `kvanalyze judge`: a language model grades the answers of a run.

#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>

#include "cli/command.h"
#include "reports/judge.h"

namespace kva::cli {
namespace {

struct JudgeCommand {
  std::string folder;
  JudgeOptions options;
  std::string cache;
  bool quiet = false;
};

void run(JudgeCommand& command) {
  command.options.cache_folder = command.cache.empty() ? std::filesystem::path(command.folder) / "judge-cache"
                                                       : std::filesystem::path(command.cache);
  Judge judge(command.options);
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
  auto options = std::make_shared<JudgeCommand>();
  command->add_option("results", options->folder, "Folder that holds results.jsonl")->required();
  command
      ->add_option("--judge", options->options.url,
                   "The endpoint: http://HOST/v1, or Azure's .../openai/deployments/NAME/chat/completions?"
                   "api-version=...; its key comes from OPENAI_API_KEY or AZURE_OPENAI_API_KEY")
      ->type_name("URL")
      ->required();
  command->add_option("--judge-model", options->options.model, "Name of the model that judges")
      ->type_name("NAME")
      ->required();
  command
      ->add_option("--judge-cache", options->cache, "Folder of answers (default: judge-cache in the results)")
      ->type_name("DIR");
  command->add_option("--timeout", options->options.timeout_s, "Seconds for one request")
      ->check(CLI::Range(0.1, 3600.0).description(""))
      ->type_name("S")
      ->capture_default_str();
  command->add_option("--attempts", options->options.attempts, "Requests for one answer before giving up")
      ->check(CLI::Range(1, 20).description(""))
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--requests-per-minute", options->options.requests_per_minute,
                   "At most so many; 0: no limit")
      ->check(CLI::Range(0.0, 1e6).description(""))
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("-q,--quiet", options->quiet, "Print errors only");
  command->callback([options] { run(*options); });
}

}  // namespace kva::cli
