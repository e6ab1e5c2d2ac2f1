// What a report says, in plain words with its numbers: the same sentences in the terminal, Markdown and HTML.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace kva {

struct Finding {
  std::string value;     // "3.1 MiB", short enough for a card; empty: no card
  std::string label;     // what the value is, without its number
  std::string sentence;  // the whole of it, with its control; empty where another sentence says it
};

// Never empty. The first is the size of the cache, the second what could be freed at 0.95.
std::vector<Finding> report_findings(const nlohmann::ordered_json& report);

// Thresholds that headlines use.
inline constexpr double kHeadlineCover = 0.95;  // of cosine and L2 similarity, for freed bytes

}  // namespace kva
