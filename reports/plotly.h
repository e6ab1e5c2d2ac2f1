// Finding the charting library that report.html carries inside itself.
#pragma once

#include <string>

namespace kva {

// The text of plotly.min.js from `path`, or where that is empty from the first of $XDG_CACHE_HOME (or
// ~/.cache) kvanalyze/assets/ and the installed share/kvanalyze/assets/ beside the program; "" where there is
// none. Throws InputError where `path` was given and is not there, and where a file is no plotly bundle that
// can be inlined.
std::string load_plotly(const std::string& path);

}  // namespace kva
