// `kvanalyze run`: experiments from a configuration file, resumed where they ended.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/judge_options.h"
#include "cli/options.h"
#include "cli/report_options.h"
#include "reports/experiments/experiment_run.h"
#include "reports/experiments/ready_configs.h"
#include "runtime/error.h"
#include "runtime/io/file.h"

namespace kva::cli {
namespace {

namespace fs = std::filesystem;

struct RunCommand {
  CommonOptions common;
  std::string config;
  std::vector<std::string> experiments;  // --experiments: a file, or names as --only takes them
  ExperimentOverrides overrides;
  RunOptions run;
  std::string shard;
  std::vector<std::string> create;
  CLI::Option* create_option = nullptr;
  bool quick_test = false;
  bool no_plots = false;
  bool no_save = false;
  JudgeCommand judge;
  CLI::Option* judge_option = nullptr;
};

// Writes a ready configuration beside the user, never over anything.
void create_config(const RunCommand& command) {
  const bool named = !command.create.empty() && !command.create.front().empty();
  const std::string name = named ? command.create.front() : "general";
  const std::string_view text = ready_config(name);
  const std::string file = name + ".yaml";
  if (fs::exists(file))
    throw InputError(fmt::format("{}: expected no such file, found one; move it away", file));
  write_text_file(file, text);
  fmt::print("{}   (there are also {})\nRun it: kvanalyze run --config {}\n", file,
             fmt::join(ready_configs(), ", "), file);
}

bool names_a_file(const std::string& word) {
  const std::string extension = fs::path(word).extension().string();
  return extension == ".yaml" || extension == ".yml" || extension == ".json";
}

// --experiments is a file in one of the described systems and names in another.
void settle_experiments(RunCommand& command) {
  for (const std::string& word : command.experiments) {
    if (!names_a_file(word)) {
      command.overrides.only.push_back(word);
    } else if (command.config.empty()) {
      command.config = word;
    } else {
      throw InputError(
          fmt::format("--experiments: expected one configuration, found {} and {}", command.config, word));
    }
  }
}

ConfigNode configuration(const RunCommand& command) {
  if (!command.config.empty()) {
    if (command.quick_test) throw InputError("--quick-test: expected no --config beside it");
    return ConfigNode::parse_file(command.config);
  }
  // Names of experiments, a model or a length alone mean the configuration that they come from.
  const ExperimentOverrides& given = command.overrides;
  const bool asked = !given.only.empty() || !given.model.empty() || given.max_gen_tokens > 0;
  const char* ready = command.quick_test ? "quick-test" : asked ? "attention-sink-minicache" : nullptr;
  if (!ready)
    throw InputError(fmt::format(
        "--config: expected a file, found none; --quick-test needs none, and --create-config NAME "
        "writes one of {}",
        fmt::join(ready_configs(), ", ")));
  if (!command.common.quiet)
    fmt::print(stderr, "note: no --config: the ready configuration {} is run\n", ready);
  return ConfigNode::parse_text(ready_config(ready), std::string(ready) + ".yaml", ConfigSyntax::kYaml);
}

void settle_judge(RunCommand& command, const std::string& folder) {
  if (!command.judge_option->count()) {
    if (!command.judge.options.model.empty())
      throw InputError("--judge-model: expected --judge URL beside it, found none");
    return;
  }
  if (command.judge.options.url.empty())
    throw InputError(
        "--judge: expected the URL of a chat endpoint, found none; for Azure .../openai/deployments/NAME/"
        "chat/completions?api-version=..., its key in AZURE_OPENAI_API_KEY");
  if (!command.run.save || command.run.shard.is_part())
    throw InputError("--judge: expected no --no-save and no --shard beside it");
  command.run.judge = command.judge.settled(folder);
}

void print_outcome(const RunOutcome& outcome, const RunCommand& command) {
  for (const std::string& note : outcome.notes)
    if (!command.common.quiet) fmt::print(stderr, "note: {}\n", note);
  if (command.common.quiet) return;
  fmt::print("{}", outcome.table);
  if (outcome.folder.empty()) return;
  if (command.run.shard.is_part())
    fmt::print("Rows of this shard: {}; the same command without --shard joins all shards of the folder\n",
               outcome.folder);
  else
    fmt::print("Rows: {0}/results.jsonl   Summary: {0}/experiment_summary.json{1}\n", outcome.folder,
               command.run.dashboard ? fmt::format("   Dashboard: {}/dashboard.html", outcome.folder) : "");
}

void run(RunCommand& command) {
  if (command.create_option->count() > 0) return create_config(command);
  settle_experiments(command);
  if (!command.shard.empty()) command.run.shard = parse_shard(command.shard);
  command.run.plots = !command.no_plots;
  const ExperimentFile file = read_experiments(configuration(command), command.overrides);
  command.run.save = !command.no_save && file.save;
  settle_judge(command, file.output_dir);
  if (command.run.save_attention && (!command.run.save || command.run.shard.is_part()))
    throw InputError("--save-attention: expected no --no-save and no --shard beside it");
  ThreadPool pool(command.common.threads);
  Progress progress(progress_mode(command.common));
  const RunOutcome outcome = run_experiments(file, command.run, command.common.stamp, pool, progress);
  print_outcome(outcome, command);
  if (!outcome.judge_error.empty()) throw InputError(outcome.judge_error);
  if (outcome.failed > 0)
    throw InputError(fmt::format("{} of {} trials failed{}", outcome.failed, outcome.trials,
                                 outcome.folder.empty() ? "" : "; " + outcome.folder + "/run.log says why"));
}

void add_choices(CLI::App& app, RunCommand& command) {
  const std::string group = "Experiments";
  app.add_option("-c,--config", command.config, "Configuration, YAML or JSON (docs/experiments.md)")
      ->type_name("FILE")
      ->group(group);
  app.add_option("--experiments", command.experiments, "The configuration, or names as --only takes them")
      ->type_name("FILE|NAME...")
      ->group(group);
  app.add_option("--only", command.overrides.only,
                 "Only these strategies or experiments, by name; Baseline always runs")
      ->type_name("NAME...")
      ->group(group);
  app.add_flag("--quick-test", command.quick_test, "A small ready configuration")->group(group);
  command.create_option =
      app.add_option("--create-config", command.create, "Write a ready configuration here, and end")
          ->expected(0, 1)
          ->type_name("[NAME]")
          ->group(group);
}

void add_overrides(CLI::App& app, RunCommand& command) {
  const std::string group = "Instead of the file";
  app.add_option("-m,--model", command.overrides.model, "Model of all experiments")
      ->type_name("NAME")
      ->group(group);
  app.add_option("--cache-dir,--cache_dir", command.overrides.cache_dir,
                 "Hugging Face cache to look in and fetch to")
      ->type_name("DIR")
      ->group(group);
  app.add_flag("--offline", command.overrides.offline, "Never fetch a model")->group(group);
  add_device_option(app, command.overrides.device)->group(group);
  app.add_option("-o,--output-dir,--results-dir,--output", command.overrides.output_dir,
                 "Folder of the results")
      ->type_name("DIR")
      ->group(group);
  app.add_option("--length", command.overrides.max_gen_tokens, "Tokens generated after each turn")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24).description(""))
      ->type_name("N")
      ->group(group);
  app.add_option("--limit", command.overrides.limit, "Samples of each prompt set (0: all)")
      ->check(CLI::Range(int64_t{0}, int64_t{1000000}).description(""))
      ->type_name("N")
      ->group(group);
}

}  // namespace

void add_run(CLI::App& app) {
  auto command = std::make_shared<RunCommand>();
  auto* sub = app.add_subcommand(
      "run", "Experiments from a file: models x strategies x prompts, resumed after a kill");
  add_choices(*sub, *command);
  add_overrides(*sub, *command);
  const std::string group = "Run";
  sub->add_option("--shard", command->shard, "Only part i of n; the run without it joins them")
      ->type_name("I/N")
      ->group(group);
  sub->add_flag("--no-save", command->no_save, "Write nothing")->group(group);
  sub->add_flag("--no-plots", command->no_plots, "Draw no PNGs")->group(group);
  sub->add_flag("--dashboard,--generate_dashboard", command->run.dashboard,
                "One HTML page of the results, and a comparison")
      ->group(group);
  sub->add_flag("--profile", command->run.profile, "Memory and time of every step: profile.csv and its plot")
      ->group(group);
  sub->add_flag("--debug", command->run.debug, "Every decision of a strategy into run.log")->group(group);
  sub->add_flag(
         "--save-attention", command->run.save_attention,
         "images/layerL_headH.png and images/attention.json: where each KV head (its query heads "
         "averaged) looks in the first sample, under each strategy, in 128 x 128 blocks at most (64 KiB "
         "of memory a head and strategy); feeds the sample once more for each strategy, and draws a "
         "second or so a head")
      ->group(group);
  sub->add_option("--threads", command->common.threads, "Threads in all (0: one a core)")
      ->check(CLI::Range(0, 1024).description(""))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  auto* quiet = sub->add_flag("-q,--quiet", command->common.quiet, "Print errors only")->group(group);
  sub->add_flag("-v,--verbose", command->common.verbose, "Say more while working")
      ->excludes(quiet)
      ->group(group);
  command->judge_option =
      add_judge_options(*sub, command->judge, "--judge,--eval_azure", true)->expected(0, 1);
  command->common.stamp.command = command_line();
  sub->callback([command] { run(*command); });
}

}  // namespace kva::cli
