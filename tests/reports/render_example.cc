// The report code for tests in Python:
//   render_example plain|hostile|ab|judged|hostile-ab FOLDER [plotly.min.js]   writes an example report
//   render_example json|json-ab|json-compress FILE                      only its report.json
//   render_example check FILE            loads a report.json; 1 and one line where it is refused
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>

#include "reports/report_file.h"
#include "runtime/error.h"
#include "runtime/io/file.h"
#include "tests/reports/example_report.h"

int main(int argc, char** argv) {
  if (argc < 3) return 1;
  const std::string kind = argv[1];
  const auto report = kind == "hostile"                   ? kva::hostile_report()
                      : kind == "hostile-ab"              ? kva::hostile_ab_report()
                      : kind == "judged"                  ? kva::example_judged_report()
                      : kind == "ab" || kind == "json-ab" ? kva::example_ab_report()
                      : kind == "json-compress"           ? kva::example_compress_report()
                                                          : kva::example_report();
  if (kind.starts_with("json")) {
    kva::write_text_file(argv[2], report.dump());
    return 0;
  }
  if (kind == "check") {
    try {
      kva::load_report(argv[2]);
      return 0;
    } catch (const kva::InputError& error) {
      fmt::print("{}\n", error.what());
      return 1;
    }
  }
  kva::RenderOptions options;
  if (argc > 3) options.plotly_path = argv[3];
  for (const std::string& note : kva::write_report(report, argv[2], options)) fmt::print("{}\n", note);
  return 0;
}
