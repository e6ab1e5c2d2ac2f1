// report.html of a report of kind "ab": its sections and the data of its charts.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "reports/html_page.h"

namespace kva {

std::string ab_html(const PageSource& source);

// What the page's scripts draw from (html_report.h).
std::string ab_page_data(const nlohmann::ordered_json& report);

}  // namespace kva
