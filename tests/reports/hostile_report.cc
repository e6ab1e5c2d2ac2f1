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

}  // namespace

Json hostile_report(const char* marker) {
  Json report = example_report();
  const std::string html =
      "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>\"'&{{data}}";
  const std::string gnuplot =
      fmt::format("a'; system('touch {0}'); print '`touch {0}` $(touch {0}) \" \\", marker);
  const std::string plotly = "<a href=\"javascript:window.pwned=1\">x</a><b>y</b>";
  rename(report, "general", html);
  rename(report, "repetitive", gnuplot);
  rename(report, "code", plotly);
  report["model"]["name"] = html + gnuplot + "\n\x1b[31m![x](http://example.com/x.png)";
  report["prompts"][0]["name"] = html + "| [x](javascript:alert(1)) <b>";
  report["provenance"]["command"] = "kvanalyze <script>window.pwned=1</script>\n# heading";
  report["definitions"]["<img src=x onerror=window.pwned=1>"] = "<!--<script>" + html;
  report["provenance"]["options"]["</style><script>window.pwned=1</script>"] = Json::array({html, gnuplot});
  return report;
}

}  // namespace kva
