// Files of reports/assets/ and the report's schema, compiled into the program.
#pragma once

#include <string_view>

namespace kva {

// The text of "report.css", "report.schema.json", ...; lives as long as the program. A name that is not there
// is a bug.
std::string_view asset(std::string_view name);

}  // namespace kva
