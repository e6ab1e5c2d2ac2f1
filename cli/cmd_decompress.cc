// `kvanalyze decompress`: a compressed capture as an ordinary one.

#include <fmt/format.h>

#include <memory>

#include "cli/command.h"
#include "cli/report_options.h"
#include "reports/compress_run.h"

namespace kva::cli {
namespace {

struct DecompressJob {
  std::string compressed;
  std::string output_dir = "kvanalyze-capture";
  CommonOptions common;
};

void run(const DecompressJob& job) {
  ThreadPool pool(job.common.threads);
  Progress progress(progress_mode(job.common));
  const int64_t pages = run_decompress(job.compressed, job.output_dir, job.common.stamp, pool, progress);
  if (job.common.quiet) return;
  fmt::print("{0} pages in {1}\nAnalyse them with: kvanalyze analyze --capture {1}\n", pages, job.output_dir);
}

}  // namespace

void add_decompress(CLI::App& app) {
  auto* command = app.add_subcommand("decompress", "Write a compressed capture as an ordinary one");
  auto job = std::make_shared<DecompressJob>();
  command->add_option("-c,--capture", job->compressed, "Folder that `kvanalyze compress` wrote")
      ->required()
      ->type_name("DIR");
  command->add_option("-o,--output-dir,--out", job->output_dir, "Folder of the capture")
      ->type_name("DIR")
      ->capture_default_str();
  add_common_options(*command, job->common);
  command->callback([job] { run(*job); });
}

}  // namespace kva::cli
