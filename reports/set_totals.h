// What the prompt sets of a report have together.
#pragma once

#include <nlohmann/json_fwd.hpp>

namespace kva {

struct SetTotals {
  double tokens = 0;
  double prompts = 0;
  double pages = 0;  // of one head of one layer
};

SetTotals set_totals(const nlohmann::ordered_json& report);

}  // namespace kva
