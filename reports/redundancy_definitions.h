// One sentence for each term of the redundancy report, with the options in force.
#pragma once

#include <string>
#include <vector>

#include "analyzer/redundancy/redundancy.h"

namespace kva {

struct Definition {
  std::string term;
  std::string text;
};

std::vector<Definition> redundancy_definitions(const RedundancyOptions& options);

}  // namespace kva
