#include "reports/html_report.h"

#include <nlohmann/json.hpp>

#include "reports/ab_html.h"
#include "reports/compress_tables.h"
#include "reports/redundancy_html.h"
#include "reports/report_view.h"

namespace kva {

std::string page_data(const Json& report) {
  if (text_is(report, "kind", "compression")) return "{}";
  return text_is(report, "kind", "ab") ? ab_page_data(report) : redundancy_page_data(report);
}

std::string html_report(const Json& report, const PlotSet& plots,
                        const std::map<std::string, std::string>& png_bytes, const std::string& plotly_js) {
  const PageSource source{report, plots, png_bytes, plotly_js};
  if (text_is(report, "kind", "compression")) return compress_html(source);
  return text_is(report, "kind", "ab") ? ab_html(source) : redundancy_html(source);
}

}  // namespace kva
