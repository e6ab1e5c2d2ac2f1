// kvanalyze: finds where the KV cache of a language model repeats itself.
//
// Without a subcommand it runs the main job; every subcommand is one file beside this one. Exit codes: 0
// done, 1 the user's mistake (one line on stderr), 2 a bug of ours, 130 interrupted.

#include <fmt/format.h>

#include <new>

#include "cli/command.h"
#include "reports/provenance.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"

namespace {

constexpr const char* kFooter = R"(Start here:
  kvanalyze --model smollm2-135m                       analyse the built-in prompts, report in kvanalyze-report/
  kvanalyze --model opt-125m --prompt "..." --quick    your own prompt, a quick look
  kvanalyze generate --model smollm2-135m --prompt "The capital of France is" --max-tokens 20
  kvanalyze size --model gpt2 --context 1024           KV bytes without loading a weight
)";

int fail(const std::string& message, int code) {
  fmt::print(stderr, "kvanalyze: {}\n", message);
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  kva::install_interrupt_handler();
  CLI::App app{"Finds where the KV cache of a language model repeats itself, and what that is worth.",
               "kvanalyze"};
  app.set_version_flag("--version", kva::version_line());
  app.require_subcommand(0, 1);
  app.get_formatter()->column_width(34);
  kva::cli::add_main_job(app);
  kva::cli::add_capture(app);
  kva::cli::add_analyze(app);
  kva::cli::add_compress(app);
  kva::cli::add_decompress(app);
  kva::cli::add_eval(app);
  kva::cli::add_ab(app);
  kva::cli::add_compare(app);
  kva::cli::add_run(app);
  kva::cli::add_dashboard(app);
  kva::cli::add_judge(app);
  kva::cli::add_render(app);
  kva::cli::add_generate(app);
  kva::cli::add_tokenize(app);
  kva::cli::add_size(app);
  kva::cli::add_max_context(app);
  kva::cli::add_methods(app);
  kva::cli::add_doctor(app);
  kva::cli::add_completion(app);
  app.footer(kFooter);  // after the commands, which would inherit it

  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::Success& help_or_version) {
    return app.exit(help_or_version);
  } catch (const CLI::ParseError& error) {
    return fail(fmt::format("{} (kvanalyze --help lists the options)", error.what()), 1);
  } catch (const kva::InputError& error) {
    return fail(error.what(), 1);
  } catch (const kva::Interrupted&) {
    return fail("interrupted; nothing was left half-written", 130);
  } catch (const std::bad_alloc&) {
    return fail("out of memory; try a smaller model, --batch-size or --max-context", 1);
  } catch (const std::exception& error) {
    return fail(fmt::format("internal error: {}\nThis is a bug; please report it with the command line.",
                            error.what()),
                2);
  }
}
