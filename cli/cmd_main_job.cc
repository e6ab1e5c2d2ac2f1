// `kvanalyze --model M`: decode prompts, keep the pages in memory, analyse them, judge a recipe of each
// family on them, write the report.

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/report_options.h"
#include "compressors/recipe.h"
#include "reports/default_ab.h"
#include "runtime/error.h"

namespace kva::cli {
namespace {

struct MainJob {
  CaptureOptions capture;
  ReportOptions report;
  CommonOptions common;
  DefaultAb ab;
  bool no_ab = false;
  bool quick = false;
};

// A look in seconds: what was not asked for otherwise becomes small.
void make_quick(const CLI::App& app, MainJob& job) {
  if (app.count("--limit") == 0) job.capture.prompts.limit = 2;
  if (app.count("--max-context") == 0) job.capture.max_context = 256;
  if (app.count("--max-tokens") == 0) job.capture.max_tokens = 8;
  job.ab.context = 512;
  job.ab.windows = 1;
}

void run(MainJob& job) {
  // A mistake in a recipe is told before the long part.
  for (const std::string& recipe : job.ab.recipes) Recipe::parse(recipe);
  if (!job.no_ab) check_default_ab(job.capture, job.ab);
  ThreadPool pool(job.common.threads);
  Progress progress(progress_mode(job.common));
  MemoryCapture memory;
  const nlohmann::ordered_json facts = run_capture(job.capture, memory, pool, progress);
  job.common.stamp.device = facts.at("device");
  job.ab.seed = job.common.seed;
  const auto judge = [&](nlohmann::ordered_json& report) {
    if (!job.no_ab) add_default_ab(job.capture, job.ab, job.common.stamp, pool, progress, report);
  };
  // Why there is none was said before anything was decoded.
  RunDevice device = open_device(job.capture.device, [](const std::string&) {});
  analyze_and_report(memory.pages(), facts, job.report, job.common, job.capture.device, std::move(device),
                     pool, progress, judge);
}

}  // namespace

void add_main_job(CLI::App& app) {
  auto job = std::make_shared<MainJob>();
  add_model_options(app, job->capture);
  add_prompt_options(app, job->capture);
  add_cache_options(app, job->capture);
  add_report_options(app, job->report);
  add_common_options(app, job->common);
  add_device_option(app, job->capture.device.name);
  app.add_option("-r,--recipe", job->ab.recipes,
                 "Recipes to judge on the prompts, repeatable (default: one of each family)")
      ->allow_extra_args(false)
      ->type_name("RECIPE")
      ->group("Compression");
  app.add_flag("--no-ab", job->no_ab, "Judge no recipes")->group("Compression");
  app.add_flag("--quick", job->quick, "Two prompts of each set, 256 tokens each: a look in seconds")
      ->group("Run");
  app.callback([&app, job] {
    if (!app.get_subcommands().empty()) return;
    if (job->capture.model.empty())
      throw InputError(
          "expected --model with a folder, an alias such as smollm2-135m, or a hub id; "
          "kvanalyze --help shows examples");
    if (job->quick) make_quick(app, *job);
    run(*job);
  });
}

}  // namespace kva::cli
