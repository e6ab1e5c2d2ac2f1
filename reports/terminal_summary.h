// What a run found, on one screen.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace kva {

// At most `width` columns (40 to 200) and some forty lines; `color` writes ANSI colours.
// Text of the report is printed without control characters.
std::string terminal_summary(const nlohmann::ordered_json& report, bool color, int width);

}  // namespace kva
