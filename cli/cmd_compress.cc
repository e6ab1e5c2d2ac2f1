// `kvanalyze compress`: a captured cache through a recipe, without the model.

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/report_options.h"
#include "reports/compress_run.h"
#include "runtime/io/packed_file.h"

namespace kva::cli {
namespace {

struct CompressJob {
  CompressOptions run;
  CommonOptions common;
  bool json = false;
};

void run(CompressJob& job) {
  ThreadPool pool(job.common.threads);
  Progress progress(progress_mode(job.common));
  job.run.seed = job.common.seed;
  const nlohmann::ordered_json report = run_compress(job.run, job.common.stamp, pool, progress);
  if (job.json) {
    fmt::print("{}\n", report.dump(1));
  } else if (!job.common.quiet) {
    print_summary(report, job.run.dry_run ? "" : job.run.output_dir);
    if (!job.run.dry_run)
      fmt::print("Read it back with: kvanalyze decompress --capture {}\n", job.run.output_dir);
  }
}

}  // namespace

void add_compress(CLI::App& app) {
  auto* command =
      app.add_subcommand("compress", "Put a captured KV cache through a recipe: bytes and errors");
  auto job = std::make_shared<CompressJob>();
  CompressOptions& options = job->run;
  options.output_dir = "kvanalyze-compressed";
  command->add_option("-c,--capture", options.capture, "Folder that `kvanalyze capture` wrote")
      ->required()
      ->type_name("DIR");
  command->add_option("-r,--recipe", options.recipe, "What to do (kvanalyze methods lists the methods)")
      ->required()
      ->type_name("RECIPE");
  command
      ->add_option("--calibration", options.calibration,
                   "A capture that methods learn from (default: the capture itself)")
      ->type_name("DIR");
  command
      ->add_option("--zstd", options.zstd_level,
                   "zstd level of the files, not of what memory holds (0: none)")
      ->check(CLI::Range(0, kMostZstdLevel).description(""))
      ->type_name("LEVEL")
      ->capture_default_str();
  command->add_flag("--dry-run", options.dry_run, "Print the bytes only; write nothing, measure no error");
  command->add_option("-o,--output-dir,--out", options.output_dir, "Folder of the compressed capture")
      ->type_name("DIR")
      ->capture_default_str();
  command->add_flag("--json", job->json, "Print report.json instead of the summary");
  add_common_options(*command, job->common);
  command->callback([job] { run(*job); });
}

}  // namespace kva::cli
