// `kvanalyze max-context`: how long a context a memory holds under each recipe, found by filling it.

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/count_option.h"
#include "cli/options.h"
#include "cli/report_options.h"
#include "reports/max_context.h"
#include "reports/screen.h"
#include "reports/screen_table.h"
#include "reports/text_format.h"
#include "runtime/kv/kv_cache.h"

namespace kva::cli {
namespace {

struct MaxContextCommand {
  MaxContextOptions run;
  CommonOptions common;
  bool json = false;
};

void print_result(const nlohmann::ordered_json& result) {
  const Terminal terminal = terminal_of_stdout(120);
  Screen screen(terminal.color, terminal.width);
  const auto bytes = [&](const char* name) { return format_bytes(result.at(name).get<double>()); };
  screen.line("Model",
              fmt::format("{} · weights {} · made for {} positions", result.at("model").get<std::string>(),
                          bytes("weight_bytes"), format_count(result.at("positions").get<double>())));
  screen.line("Memory", fmt::format("{} of {} for weights, workspace and {}", bytes("memory_bytes"),
                                    result.at("device").get<std::string>(),
                                    result.at("batch") == 1
                                        ? std::string("the cache of one sequence")
                                        : fmt::format("the caches of {} sequences",
                                                      format_count(result.at("batch").get<double>()))));
  screen.heading("Longest context",
                 fmt::format("filled in steps of {} tokens", result.at("chunk").get<int64_t>()));
  add_table(max_context_table(result), screen);
  fmt::print("{}", screen.take());
}

void run(MaxContextCommand& command) {
  command.run.seed = command.common.seed;
  ThreadPool pool(command.common.threads);
  Progress progress(progress_mode(command.common));
  const nlohmann::ordered_json result = find_max_context(command.run, pool, progress);
  if (command.json)
    fmt::print("{}\n", result.dump(2));
  else if (!command.common.quiet)
    print_result(result);
}

}  // namespace

void add_max_context(CLI::App& app) {
  auto* command =
      app.add_subcommand("max-context", "The longest context that a memory holds, recipe by recipe");
  auto job = std::make_shared<MaxContextCommand>();
  add_model_options(*command, job->run.model)->required();
  const std::string group = "Search";
  command
      ->add_option("-r,--recipe", job->run.recipes,
                   "A recipe, repeatable; dense(f16) is the first row anyway (kvanalyze methods lists more)")
      ->allow_extra_args(false)
      ->type_name("RECIPE")
      ->group(group);
  command
      ->add_option("--memory", job->run.memory_bytes,
                   "For weights, workspace and cache together, such as 8GiB (default: what is free)")
      ->transform(CLI::AsSizeValue(false).description(""))
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("SIZE")
      ->group(group);
  add_count(*command, "--batch-size", job->run.batch, 1, 4096, "Sequences of that context at once")
      ->group(group);
  command
      ->add_option(
          "--text", job->run.text_file,
          "UTF-8 text to fill the cache with, again and again (default: the built-in general prompts)")
      ->type_name("FILE")
      ->group(group);
  add_count(*command, "--chunk", job->run.chunk, 1, 4096, "Tokens of a step, in which the answer is exact")
      ->group(group);
  add_count(*command, "--page-size", job->run.page_tokens, 1, kMaxPageTokens, "Tokens of a page")
      ->group(group);
  command->add_flag("--json", job->json, "Print one JSON object")->group(group);
  add_device_option(*command, job->run.model.device.name);
  add_common_options(*command, job->common);
  command->callback([job] { run(*job); });
}

}  // namespace kva::cli
