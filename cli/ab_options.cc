#include "cli/ab_options.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/error.h"
#include "runtime/kv/kv_cache.h"

namespace kva::cli {

namespace {

void add_passkey_options(CLI::App& app, PasskeyOptions& options) {
  const std::string group = "Passkey retrieval";
  app.add_flag("--passkey", options.run,
               "Hide a number in the text and ask the compressed cache for it; hours for many recipes")
      ->group(group);
  const auto add_list = [&](const char* name, auto& values, const char* help) {
    return app.add_option(name, values, help)
        ->delimiter(',')
        ->allow_extra_args(false)
        ->needs("--passkey")
        ->type_name("LIST")
        ->group(group);
  };
  add_list("--passkey-depths", options.depths, "Where the number stands: shares of the text before it")
      ->capture_default_str();
  add_list("--passkey-lengths", options.lengths,
           "Tokens of prompt and question (default: 512,1024,2048, or what the model has positions for)");
  app.add_option("--passkey-trials", options.trials, "Prompts of each depth and length")
      ->needs("--passkey")
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
}

}  // namespace

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
  add_passkey_options(app, run.passkey);
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
  app.add_flag("--save-attention", command.save_attention,
               "Write images/layerL_headH.png and images/attention.json: where each KV head (its query heads "
               "averaged) looks in the first window, under each recipe, in 128 x 128 blocks at most (64 KiB "
               "of memory a head and recipe); a second or so for each head")
      ->group("Report");
  add_form_options(app, command.forms);
  add_common_options(app, command.common);
  add_device_option(app, run.model.device.name);
}

void run_ab_command(AbCommand& command) {
  command.run.timing = !command.no_timing;
  command.run.seed = command.common.seed;
  ThreadPool pool(command.common.threads);
  Progress progress(progress_mode(command.common));
  std::vector<AttentionMaps> attention;
  const nlohmann::ordered_json report = run_ab(command.run, command.common.stamp, pool, progress,
                                               command.save_attention ? &attention : nullptr);
  const auto write_images = [&](const std::string& folder) {
    return attention.empty()
               ? std::vector<std::string>()
               : write_attention(
                     folder + "/images", attention, report.at("model").at("name"),
                     "first window of " + std::filesystem::path(command.run.text_file).filename().string(),
                     !command.forms.no_plots, progress);
  };
  write_forms(report, {}, command.forms, command.common.quiet, progress, write_images);
  if (!command.require_effect) return;
  if (const auto idle = without_effect(report); !idle.empty())
    throw InputError(fmt::format("--require-effect: expected an effect of every recipe, found none of {}",
                                 fmt::join(idle, " and ")));
}

}  // namespace kva::cli
