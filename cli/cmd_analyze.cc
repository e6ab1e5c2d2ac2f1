// `kvanalyze analyze`: the report from a capture, number for number what the one-step run gives.

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/report_options.h"
#include "runtime/kv/capture.h"

namespace kva::cli {
namespace {

struct AnalyzeJob {
  std::string capture;
  ReportOptions report;
  CommonOptions common;
  DeviceChoice device;
};

void run(AnalyzeJob& job) {
  ThreadPool pool(job.common.threads);
  Progress progress(progress_mode(job.common));
  RunDevice device = open_device(job.device, [&](const std::string& line) { progress.say(line); });
  job.common.stamp.device = device.name();
  progress.stage("load", 0, "");
  const Capture capture = load_capture(job.capture);
  progress.finish();
  analyze_and_report(capture.pages, *capture.facts, job.report, job.common, job.device, std::move(device),
                     pool, progress);
}

}  // namespace

void add_analyze(CLI::App& app) {
  auto* command = app.add_subcommand("analyze", "Write the report of a captured KV cache");
  auto job = std::make_shared<AnalyzeJob>();
  command->add_option("-c,--capture", job->capture, "Folder that `kvanalyze capture` wrote")->required();
  add_report_options(*command, job->report);
  add_common_options(*command, job->common);
  add_device_option(*command, job->device.name);
  command->callback([job] { run(*job); });
}

}  // namespace kva::cli
