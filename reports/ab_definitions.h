// One sentence for each term of the A/B report, with the options in force.
#pragma once

#include <vector>

#include "reports/redundancy_definitions.h"
#include "reports/windows.h"

namespace kva {

std::vector<Definition> ab_definitions(const WindowOptions& windows);

}  // namespace kva
