// The program's commands. Each add_* registers one subcommand on the app: its options, its help and what it does.
// A command throws InputError for the user's mistakes and prints its result on stdout; main.cc turns errors
// into exit codes.
#pragma once

#include <CLI/CLI.hpp>

namespace kva::cli {

void add_tokenize(CLI::App& app);

}  // namespace kva::cli
