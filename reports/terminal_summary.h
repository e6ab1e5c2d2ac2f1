// What a run found, on one screen.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace kva {

// At most `width` columns (40 to 200) and some forty lines; `color` writes ANSI colours. `folder` is where
// the files are; empty leaves that line out. Text of the report is printed without control characters.
std::string terminal_summary(const nlohmann::ordered_json& report, bool color, int width,
                             const std::string& folder = "");

// Whether standard output wants colours (a terminal, and NO_COLOR is not set), and its width in columns.
bool stdout_wants_color();
int stdout_width();

}  // namespace kva
