#include "reports/kvanalyze.h"

#include <nlohmann/json.hpp>

#include "build_info.h"
#include "reports/ab_run.h"
#include "reports/capture_run.h"
#include "reports/redundancy_report.h"
#include "reports/report_file.h"
#include "runtime/model/model_config.h"

namespace kvanalyze {

const char* version() { return kva::build_info::kVersion; }

std::string analyze_redundancy(const RedundancyRequest& request) {
  kva::RunStamp stamp{.command = "kvanalyze::analyze_redundancy"};
  kva::CaptureOptions options;
  options.model = request.model;
  options.device.name = request.device;
  options.prompts.texts = request.prompts;
  options.page_tokens = request.page_tokens;
  options.max_context = request.max_context;
  options.max_tokens = request.max_tokens;

  kva::ThreadPool pool(request.threads);
  kva::Progress progress(request.progress);
  kva::MemoryCapture memory;
  const nlohmann::ordered_json facts = kva::run_capture(options, memory, pool, progress);
  stamp.device = facts.at("device");
  kva::RedundancyOptions analysis;
  analysis.seed = request.seed;
  const auto say = [&](const std::string& line) { progress.say(line); };
  analysis.device = kva::analysis_backend(kva::open_device(options.device, [](const std::string&) {}),
                                          options.device, memory.pages(), analysis, say);
  const kva::RedundancyReport report =
      kva::make_redundancy_report(memory.pages(), facts, analysis, stamp, pool, progress);
  if (!request.output_folder.empty())
    kva::write_report(report.json, request.output_folder,
                      {.plots = request.plots, .extra_files = {{"partners.csv", report.partners_csv}}});
  return report.json.dump();
}

std::string compare_recipes(const AbRequest& request) {
  kva::AbOptions options;
  options.model.model = request.model;
  options.model.device.name = request.device;
  options.text_file = request.text_file;
  options.recipes = request.recipes;
  options.calibration_file = request.calibration_file;
  options.windows = {
      .context = request.context, .tokens = request.tokens, .chunk = request.chunk, .turns = request.turns};
  options.page_tokens = request.page_tokens;
  options.seed = request.seed;
  options.timing = request.timing_runs > 0;
  options.timing_runs = request.timing_runs;
  options.passkey.run = request.passkey;
  options.passkey.depths = request.passkey_depths;
  options.passkey.lengths = request.passkey_lengths;
  options.passkey.trials = request.passkey_trials;

  kva::ThreadPool pool(request.threads);
  kva::Progress progress(request.progress);
  const nlohmann::ordered_json report =
      kva::run_ab(options, {.command = "kvanalyze::compare_recipes"}, pool, progress);
  if (!request.output_folder.empty())
    kva::write_report(report, request.output_folder, {.plots = request.plots});
  return report.dump();
}

int64_t kv_cache_bytes(const std::string& model_folder, int64_t context_tokens, int64_t batch) {
  const kva::ModelConfig config = kva::load_config(model_folder);
  return config.kv_bytes_per_token(kva::DType::kF16, kva::DType::kF16) * context_tokens * batch;
}

}  // namespace kvanalyze
