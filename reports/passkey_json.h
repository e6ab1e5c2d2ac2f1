// The member "passkey" of the "ab" object of report.json (docs/formats.md).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "analyzer/estimate.h"
#include "reports/passkey_run.h"

namespace kva {

// `filler` names the text that the key was hidden in.
nlohmann::ordered_json passkey_json(const PasskeyResult& result, const std::string& filler);

// Exact answers over the informative cells, with Wilson's interval; NaN where no cell is informative.
Estimate passkey_accuracy(const PasskeyResult& result, const PasskeyRow& row);

}  // namespace kva
