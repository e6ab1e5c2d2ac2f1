#include "reports/passkey_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "analyzer/quality/proportion.h"
#include "reports/json_number.h"

namespace kva {
namespace {

using Json = nlohmann::ordered_json;

double share(int64_t part, int64_t whole) { return static_cast<double>(part) / static_cast<double>(whole); }

double digit_share(const PasskeyCount& count) { return share(count.digits, count.trials * kPasskeyDigits); }

Json row_json(const PasskeyResult& result, const PasskeyRow& row) {
  const PasskeyCount total = result.total(row);
  const Estimate accuracy = passkey_accuracy(result, row);
  Json json = {{"recipe", row.recipe},
               {"trials", total.trials},
               {"exact", total.exact},
               {"accuracy", rounded(accuracy.value)},
               {"low", rounded(accuracy.low)},
               {"high", rounded(accuracy.high)},
               {"digit_accuracy", rounded(digit_share(total))},
               {"seconds", rounded(row.seconds)}};
  json["cells"] = Json::array();
  for (std::size_t i = 0; i < row.cells.size(); ++i) {
    const PasskeyCount& cell = row.cells[i];
    json["cells"].push_back({{"length", result.cells[i].length},
                             {"depth", result.cells[i].depth},
                             {"trials", cell.trials},
                             {"exact", cell.exact},
                             {"accuracy", rounded(share(cell.exact, cell.trials))},
                             {"digit_accuracy", rounded(digit_share(cell))}});
  }
  return json;
}

}  // namespace

Estimate passkey_accuracy(const PasskeyResult& result, const PasskeyRow& row) {
  const PasskeyCount total = result.total(row);
  return wilson_estimate(total.exact, total.trials);
}

Json passkey_json(const PasskeyResult& result, const std::string& filler) {
  const PasskeyOptions& options = result.options;
  Json json = {{"lengths", options.lengths},
               {"depths", options.depths},
               {"trials", options.trials},
               {"digits", kPasskeyDigits},
               {"chunk_tokens", result.chunk_tokens},
               {"query_agnostic", true},
               {"informative_from", options.informative},
               {"prompt", passkey_template()},
               {"filler", filler},
               {"seconds", rounded(result.seconds)}};
  json["cells"] = Json::array();
  for (std::size_t i = 0; i < result.cells.size(); ++i)
    json["cells"].push_back({{"length", result.cells[i].length},
                             {"depth", result.cells[i].depth},
                             {"mean_tokens", rounded(share(result.tokens[i], result.base.cells[i].trials))},
                             {"informative", static_cast<bool>(result.informative[i])}});
  json["informative_cells"] = std::count(result.informative.begin(), result.informative.end(), true);
  json["base"] = row_json(result, result.base);
  json["rows"] = Json::array();
  for (const PasskeyRow& row : result.rows) json["rows"].push_back(row_json(result, row));
  return json;
}

}  // namespace kva
