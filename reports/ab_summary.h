// The A/B on a terminal.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "reports/screen.h"

namespace kva {

// The section of a report that ends with an A/B: a heading and the rows.
void ab_section_summary(const nlohmann::ordered_json& report, Screen& screen);

// The rows as an aligned table, the noise floor and what to make of it.
void ab_summary(const nlohmann::ordered_json& report, Screen& screen);

}  // namespace kva
