// What an A/B report says, in plain words with its numbers. Where an interval holds no difference, none is
// claimed.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "reports/findings.h"

namespace kva {

// Never empty; the first is the baseline. A sentence for each recipe while there are few enough to read.
std::vector<Finding> ab_findings(const nlohmann::ordered_json& report);

}  // namespace kva
