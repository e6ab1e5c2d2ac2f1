#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kva {

// What a head was told to do: a line of the log, a row of the report.
struct HeadDecision {
  int layer = 0;
  int kv_head = 0;
  std::vector<std::string> policies;  // "special", "punctuation", ...
  int64_t tokens_before = 0;
  int64_t tokens_after = 0;
  friend bool operator==(const HeadDecision&, const HeadDecision&) = default;
};

}  // namespace kva
