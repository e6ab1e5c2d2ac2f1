// The program's commands. Each add_* registers one subcommand on the app: its options, its help and what it
// does. A command throws InputError for the user's mistakes and prints its result on stdout; main.cc turns
// errors into exit codes.
#pragma once

#include <CLI/CLI.hpp>

namespace kva::cli {

void add_ab(CLI::App& app);           // recipes side by side
void add_analyze(CLI::App& app);      // report from a capture
void add_capture(CLI::App& app);      // pages into a folder
void add_compare(CLI::App& app);      // two reports of recipes
void add_compress(CLI::App& app);     // a capture through a recipe
void add_completion(CLI::App& app);   // shell completion
void add_dashboard(CLI::App& app);    // page of a run's trials
void add_decompress(CLI::App& app);   // and back
void add_doctor(CLI::App& app);       // does this machine do what it should?
void add_eval(CLI::App& app);         // one recipe
void add_generate(CLI::App& app);     // text from a model
void add_judge(CLI::App& app);        // scores of a run's answers
void add_max_context(CLI::App& app);  // the longest context that fits
void add_methods(CLI::App& app);      // what a recipe can say
void add_render(CLI::App& app);       // a report's written forms again
void add_run(CLI::App& app);          // experiments from a file
void add_size(CLI::App& app);         // KV bytes from the config alone
void add_tokenize(CLI::App& app);     // ids of a text

// The job of `kvanalyze --model M` without a subcommand: capture, analyse, report.
void add_main_job(CLI::App& app);

}  // namespace kva::cli
