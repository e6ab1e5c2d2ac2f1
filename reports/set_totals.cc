#include "reports/set_totals.h"

#include <nlohmann/json.hpp>

#include "reports/report_view.h"

namespace kva {

SetTotals set_totals(const Json& report) {
  SetTotals totals;
  for (const Json& set : report.at("sets")) {
    totals.tokens += number_at(set, "tokens");
    totals.prompts += number_at(set, "prompts");
    totals.pages += number_at(set, "pages");
  }
  return totals;
}

}  // namespace kva
