#include "cli/judge_options.h"

#include <filesystem>

namespace kva::cli {

JudgeOptions JudgeCommand::settled(const std::string& results_folder) const {
  JudgeOptions settled = options;
  settled.cache_folder =
      cache.empty() ? std::filesystem::path(results_folder) / "judge-cache" : std::filesystem::path(cache);
  return settled;
}

CLI::Option* add_judge_options(CLI::App& app, JudgeCommand& command, const std::string& names, bool prefix) {
  const std::string group = prefix ? "Judge" : app.get_option("--help")->get_group();
  const std::string before = prefix ? "--judge-" : "--";
  CLI::Option* judge =
      app.add_option(names, command.options.url,
                     "The endpoint: http://HOST/v1, or Azure's .../openai/deployments/NAME/chat/completions?"
                     "api-version=...; its key comes from OPENAI_API_KEY or AZURE_OPENAI_API_KEY")
          ->type_name("URL")
          ->group(group);
  app.add_option("--judge-model", command.options.model, "Name of the model that judges")
      ->type_name("NAME")
      ->group(group);
  app.add_option("--judge-cache", command.cache, "Folder of answers (default: judge-cache in the results)")
      ->type_name("DIR")
      ->group(group);
  app.add_option(before + "timeout", command.options.timeout_s, "Seconds for one request")
      ->check(CLI::Range(0.1, 3600.0).description(""))
      ->type_name("S")
      ->capture_default_str()
      ->group(group);
  app.add_option(before + "attempts", command.options.attempts, "Requests for one answer before giving up")
      ->check(CLI::Range(1, 20).description(""))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  app.add_option(before + "requests-per-minute", command.options.requests_per_minute,
                 "At most so many; 0: no limit")
      ->check(CLI::Range(0.0, 1e6).description(""))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  return judge;
}

}  // namespace kva::cli
