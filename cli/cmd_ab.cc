// `kvanalyze ab`: recipes side by side on a text, by bytes, quality and time.

#include <memory>

#include "cli/ab_options.h"
#include "cli/command.h"

namespace kva::cli {

void add_ab(CLI::App& app) {
  auto* command = app.add_subcommand("ab", "Judge recipes side by side: bytes, quality and time on a text");
  auto job = std::make_shared<AbCommand>();
  command
      ->add_option("-r,--recipe", job->run.recipes,
                   "A recipe, repeatable; dense(f16) is the first row anyway (kvanalyze methods lists more)")
      ->required()
      ->allow_extra_args(false)
      ->type_name("RECIPE")
      ->group("Protocol");
  add_ab_options(*command, *job);
  command->callback([job] { run_ab_command(*job); });
}

}  // namespace kva::cli
