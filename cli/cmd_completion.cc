// `kvanalyze completion bash|zsh|fish` prints a completion script made from the very options that parse.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>

#include "cli/command.h"

namespace kva::cli {
namespace {

std::vector<std::string> option_names(const CLI::App& app) {
  std::set<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.insert("--" + name);
    for (const std::string& name : option->get_snames()) names.insert("-" + name);
  }
  return {names.begin(), names.end()};
}

std::string bash_script(const CLI::App& root) {
  std::string cases, commands;
  for (const CLI::App* command : root.get_subcommands(nullptr)) {
    commands += command->get_name() + " ";
    cases +=
        fmt::format("    {}) words=\"{}\" ;;\n", command->get_name(), fmt::join(option_names(*command), " "));
  }
  return fmt::format(R"(_kvanalyze() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} command= word words
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case " {0}" in *" $word "*) command=$word; break ;; esac
  done
  case $command in
{1}    *) words="{0}{2}" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [[ $current == -* ]] || COMPREPLY+=($(compgen -f -- "$current"))
}}
complete -o filenames -F _kvanalyze kvanalyze
)",
                     commands, cases, fmt::join(option_names(root), " "));
}

std::string fish_script(const CLI::App& root) {
  std::string script = "complete -c kvanalyze -e\n";
  const auto add_options = [&](const CLI::App& app, const std::string& condition) {
    for (const CLI::Option* option : app.get_options())
      for (const std::string& name : option->get_lnames())
        script += fmt::format("complete -c kvanalyze -n '{}' -l {}\n", condition, name);
  };
  add_options(root, "__fish_use_subcommand");
  for (const CLI::App* command : root.get_subcommands(nullptr)) {
    script += fmt::format("complete -c kvanalyze -n __fish_use_subcommand -f -a {}\n", command->get_name());
    add_options(*command, "__fish_seen_subcommand_from " + command->get_name());
  }
  return script;
}

}  // namespace

void add_completion(CLI::App& app) {
  auto* command = app.add_subcommand("completion", "Print a shell completion script");
  command->footer(
      "  eval \"$(kvanalyze completion bash)\"      in ~/.bashrc\n"
      "  eval \"$(kvanalyze completion zsh)\"       in ~/.zshrc\n"
      "  kvanalyze completion fish | source       in config.fish");
  static std::string shell;
  command->add_option("shell", shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->callback([&app] {
    if (shell == "fish") {
      fmt::print("{}", fish_script(app));
    } else {
      // zsh runs bash completions through its own compatibility layer.
      fmt::print("{}{}", shell == "zsh" ? "autoload -U +X bashcompinit && bashcompinit\n" : "",
                 bash_script(app));
    }
  });
}

}  // namespace kva::cli
