// Numbers as report.json holds them.
#pragma once

#include <nlohmann/json_fwd.hpp>

namespace kva {

// Rounded to so many significant digits; null for NaN and infinities: nothing to compute the value from.
nlohmann::ordered_json rounded(double value, int digits = 6);

}  // namespace kva
