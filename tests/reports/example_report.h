// A full, plausible report.json for tests of the written forms. The numbers are made up and the model is
// called "synthetic-example"; nothing here is a result.
#pragma once

#include <nlohmann/json_fwd.hpp>

namespace kva {

struct ExampleShape {
  int layers = 4;
  int kv_heads = 2;
  int heatmap_bins = 48;
  bool rope = true;  // false: learned positions, keys of one kind only
};

nlohmann::ordered_json example_report(const ExampleShape& shape = {});

// The same of kind "ab": dense pages, a method at three widths, recipes without effect, at the base's numbers
// and with nothing finite to show. Bytes, quality and intervals are made up but fit together.
nlohmann::ordered_json example_ab_report(int layers = 4);

// The same of kind "compression"; a dry run has no errors and nothing on disk.
nlohmann::ordered_json example_compress_report(bool dry_run = false);

// The redundancy report with such an A/B at its end.
nlohmann::ordered_json example_judged_report();

// The same with names that try to break out of HTML, scripts, Markdown, gnuplot and terminals. `marker` is a
// path that a shell would make if a name were ever run.
nlohmann::ordered_json hostile_report(const char* marker = "/tmp/kvanalyze-pwned");
nlohmann::ordered_json hostile_ab_report(const char* marker = "/tmp/kvanalyze-pwned");

}  // namespace kva
