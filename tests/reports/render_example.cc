// Writes an example report for tests in Python: render_example plain|hostile|json FOLDER [plotly.min.js]
// "json" writes only FOLDER/report.json.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>

#include "reports/report_file.h"
#include "runtime/io/file.h"
#include "tests/reports/example_report.h"

int main(int argc, char** argv) {
  if (argc < 3) return 1;
  const std::string kind = argv[1];
  const auto report = kind == "hostile" ? kva::hostile_report() : kva::example_report();
  if (kind == "json") {
    kva::make_directories(argv[2]);
    kva::write_text_file(std::string(argv[2]) + "/report.json", report.dump());
    return 0;
  }
  kva::RenderOptions options;
  if (argc > 3) options.plotly_path = argv[3];
  for (const std::string& note : kva::write_report(report, argv[2], options)) fmt::print("{}\n", note);
  return 0;
}
