// `kvanalyze --model M`: decode prompts, keep the pages in memory, analyse them, write the report.

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/report_options.h"
#include "runtime/error.h"

namespace kva::cli {
namespace {

struct MainJob {
  CaptureOptions capture;
  ReportOptions report;
  CommonOptions common;
  bool quick = false;
};

// A look in seconds: what was not asked for otherwise becomes small.
void make_quick(const CLI::App& app, CaptureOptions& capture) {
  if (app.count("--limit") == 0) capture.prompts.limit = 2;
  if (app.count("--max-context") == 0) capture.max_context = 256;
  if (app.count("--max-tokens") == 0) capture.max_tokens = 8;
}

void run(MainJob& job) {
  ThreadPool pool(job.common.threads);
  Progress progress(progress_mode(job.common));
  MemoryCapture memory;
  const nlohmann::ordered_json facts = run_capture(job.capture, memory, pool, progress);
  analyze_and_report(memory.pages(), facts, job.report, job.common, pool, progress);
}

}  // namespace

void add_main_job(CLI::App& app) {
  auto job = std::make_shared<MainJob>();
  add_model_options(app, job->capture);
  add_prompt_options(app, job->capture);
  add_cache_options(app, job->capture);
  add_report_options(app, job->report);
  add_common_options(app, job->common);
  app.add_flag("--quick", job->quick, "Two prompts of each set, 256 tokens each: a look in seconds")
      ->group("Run");
  app.callback([&app, job] {
    if (!app.get_subcommands().empty()) return;
    if (job->capture.model.empty())
      throw InputError(
          "expected --model with a folder, an alias such as smollm2-135m, or a hub id; "
          "kvanalyze --help shows examples");
    if (job->quick) make_quick(app, job->capture);
    run(*job);
  });
}

}  // namespace kva::cli
