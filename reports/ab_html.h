// Recipes in report.html: the page of a report of kind "ab", and the section of one that ends with an A/B.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "reports/html_page.h"

namespace kva {

std::string ab_html(const PageSource& source);

// What the page's scripts draw from (html_report.h).
std::string ab_page_data(const nlohmann::ordered_json& report);

// The section of a redundancy report that ends with an A/B, and the members that its chart draws from.
void judged_recipes_section(HtmlPage& page, const nlohmann::ordered_json& report);
void add_judged_recipes(nlohmann::ordered_json& data, const nlohmann::ordered_json& report);

}  // namespace kva
