// report.md: a summary to read in a terminal, an editor or on GitHub.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "reports/plots.h"

namespace kva {

// Links to the plots as plots/NAME. All text of the report is escaped.
std::string markdown_report(const nlohmann::ordered_json& report, const PlotSet& plots);

}  // namespace kva
