// One sentence for each term of the A/B report, with the options in force.
#pragma once

#include <vector>

#include "reports/passkey.h"
#include "reports/redundancy_definitions.h"
#include "reports/windows.h"

namespace kva {

// With those of passkey retrieval where it is run.
std::vector<Definition> ab_definitions(const WindowOptions& windows, const PasskeyOptions& passkey = {});

}  // namespace kva
