#include "cli/ab_options.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/report_options.h"
#include "reports/report_file.h"
#include "runtime/error.h"
#include "runtime/kv/kv_cache.h"

namespace kva::cli {

void add_ab_options(CLI::App& app, AbCommand& command) {
  AbOptions& run = command.run;
  add_model_options(app, run.model)->required();
  const std::string group = "Protocol";
  const auto add_count = [&](const char* name, auto& value, const char* help) {
    app.add_option(name, value, help)->type_name("N")->capture_default_str()->group(group);
  };
  app.add_option("--text", run.text_file, "UTF-8 text file to score")
      ->required()
      ->type_name("FILE")
      ->group(group);
  app.add_option("--calibration", run.calibration_file,
                 "UTF-8 text for methods that learn (default: the built-in general prompts)")
      ->type_name("FILE")
      ->group(group);
  add_count("--context", run.windows.context, "Tokens of a window; the second half is scored");
  add_count("--tokens", run.windows.tokens, "Scored tokens at most (0: all whole windows of the text)");
  add_count("--chunk", run.windows.chunk, "Tokens of a step: a step sees its own tokens exactly");
  add_count("--turns", run.windows.turns,
            "Cut the scored half into turns that each read the compressed ones before");
  app.add_option("--page-size", run.page_tokens, "Tokens of a page")
      ->check(CLI::Range(1, kMaxPageTokens).description(""))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  app.add_flag("--no-timing", command.no_timing, "Measure no speed")->group(group);
  app.add_option("--timing-runs", run.timing_runs,
                 "Runs that speed is the median of, after one that warms up")
      ->check(CLI::Range(1, 1000).description(""))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  app.add_flag("--require-effect", command.require_effect,
               "A recipe that changes neither a byte nor a logit is an error")
      ->group(group);
  const std::string report = "Report";
  app.add_option("-o,--output-dir", command.output_dir, "Folder of the report")
      ->type_name("DIR")
      ->capture_default_str()
      ->group(report);
  app.add_flag("--json", command.json, "Print report.json instead of the summary")->group(report);
  add_common_options(app, command.common);
}

void run_ab_command(AbCommand& command) {
  command.run.timing = !command.no_timing;
  command.run.seed = command.common.seed;
  ThreadPool pool(command.common.threads);
  Progress progress(progress_mode(command.common));
  const nlohmann::ordered_json report = run_ab(command.run, command.common.stamp, pool, progress);
  progress.stage("report", 0, "");
  const auto notes = write_report(report, command.output_dir);
  progress.finish();
  print_report(report, notes, command.output_dir, command.json, command.common.quiet);
  if (!command.require_effect) return;
  if (const auto idle = without_effect(report); !idle.empty())
    throw InputError(fmt::format("--require-effect: expected an effect of every recipe, found none of {}",
                                 fmt::join(idle, " and ")));
}

}  // namespace kva::cli
