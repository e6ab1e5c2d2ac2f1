// report.html: one self-contained interactive page. It fetches nothing: a content security policy forbids it.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "reports/plots.h"

namespace kva {

// `plotly_js` is inlined once where it is not empty; else the page shows tables and the PNGs of `png_bytes`
// (file name -> contents), inlined too, and says how to get interactive charts. The summary and the tables
// need no scripts. All text of the report is escaped.
std::string html_report(const nlohmann::ordered_json& report, const PlotSet& plots,
                        const std::map<std::string, std::string>& png_bytes, const std::string& plotly_js);

// The data that the page's scripts draw from: the report without what they do not use, numbers rounded to six
// digits. Safe inside a <script> element.
std::string page_data(const nlohmann::ordered_json& report);

}  // namespace kva
