// `kvanalyze eval`: one recipe on a text, beside dense f16.

#include <memory>

#include "cli/ab_options.h"
#include "cli/command.h"

namespace kva::cli {

void add_eval(CLI::App& app) {
  auto* command = app.add_subcommand("eval", "Judge one recipe: bytes, quality and time on a text");
  auto job = std::make_shared<AbCommand>();
  auto recipe = std::make_shared<std::string>();
  command->add_option("-r,--recipe", *recipe, "The recipe (kvanalyze methods lists what there is)")
      ->required()
      ->type_name("RECIPE")
      ->group("Protocol");
  add_ab_options(*command, *job);
  command->callback([job, recipe] {
    job->run.recipes = {*recipe};
    run_ab_command(*job);
  });
}

}  // namespace kva::cli
