#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/reports/example_report.h"

namespace kva {
namespace {

using Json = nlohmann::ordered_json;

// Names a set otherwise wherever it occurs.
void rename(Json& value, const std::string& from, const std::string& to) {
  if (value.is_string() && value.get<std::string>() == from) value = to;
  if (value.is_structured())
    for (Json& member : value) rename(member, from, to);
}

struct Names {
  std::string html;
  std::string gnuplot;
  std::string plotly;
};

Names hostile_names(const char* marker) {
  return {
      "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>\"'&{{data}}",
      fmt::format("a'; system('touch {0}'); print '`touch {0}` $(touch {0}) \" %s %n \\", marker),
      "<a href=\"javascript:window.pwned=1\">x</a><b>y</b>",
  };
}

void add_hostile_frame(Json& report, const Names& names) {
  report["model"]["name"] = names.html + names.gnuplot + "\n\x1b[31m![x](http://example.com/x.png)";
  report["provenance"]["command"] = "kvanalyze <script>window.pwned=1</script>\n# heading";
  report["definitions"]["<img src=x onerror=window.pwned=1>"] = "<!--<script>" + names.html;
  report["provenance"]["options"]["</style><script>window.pwned=1</script>"] =
      Json::array({names.html, names.gnuplot});
}

}  // namespace

Json hostile_report(const char* marker) {
  Json report = example_report();
  const Names names = hostile_names(marker);
  rename(report, "general", names.html);
  rename(report, "repetitive", names.gnuplot);
  rename(report, "code", names.plotly);
  report["prompts"][0]["name"] = names.html + "| [x](javascript:alert(1)) <b>";
  add_hostile_frame(report, names);
  return report;
}

Json hostile_ab_report(const char* marker) {
  Json report = example_ab_report();
  const Names names = hostile_names(marker);
  rename(report, "quant(k=8,v=8)", names.html);
  rename(report, "quant(k=4,v=4)", names.gnuplot);
  rename(report, "quant(k=#,v=#)", names.plotly);
  rename(report, "dedup(exact)", names.plotly + "| [x](javascript:alert(1)) <b>");
  rename(report, "example.txt", names.html);
  report["ab"]["rows"][1]["codec"]["remarks"] = {names.html};
  add_hostile_frame(report, names);
  return report;
}

}  // namespace kva
