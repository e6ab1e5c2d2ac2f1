// `kvanalyze capture`: decode prompts and stream their pages into a folder (docs/formats.md).

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/report_options.h"

namespace kva::cli {
namespace {

struct CaptureJob {
  CaptureOptions capture;
  CommonOptions common;
  std::string output_dir = "kvanalyze-capture";
};

void run(CaptureJob& job) {
  ThreadPool pool(job.common.threads);
  Progress progress(progress_mode(job.common));
  CaptureWriter writer(job.output_dir);
  const nlohmann::ordered_json facts = run_capture(job.capture, writer, pool, progress);
  job.common.stamp.device = facts.at("device");
  writer.finish(facts, provenance_json(job.common.stamp, pool.threads(), job.common.seed));
  if (job.common.quiet) return;
  int64_t pages = 0;
  for (const auto& set : facts["sets"]) pages += set["pages"].get<int64_t>();
  fmt::print("{} pages of {} tokens in {}\nAnalyse them with: kvanalyze analyze --capture {}\n", pages,
             job.capture.page_tokens, job.output_dir, job.output_dir);
}

}  // namespace

void add_capture(CLI::App& app) {
  auto* command = app.add_subcommand("capture", "Stream the pages of a KV cache into a folder");
  auto job = std::make_shared<CaptureJob>();
  add_model_options(*command, job->capture)->required();
  add_prompt_options(*command, job->capture);
  add_cache_options(*command, job->capture);
  add_common_options(*command, job->common);
  add_device_option(*command, job->capture.device.name);
  command->add_option("-o,--output-dir,--out", job->output_dir, "Folder of the capture")
      ->capture_default_str();
  command->callback([job] { run(*job); });
}

}  // namespace kva::cli
