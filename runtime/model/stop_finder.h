// Finding stop strings in text that comes piece by piece.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kva {

class StopFinder {
 public:
  // Empty strings are left out.
  explicit StopFinder(std::vector<std::string> stops);

  // The text that may be shown by now: all but an end that may be the beginning of a stop string. Nothing
  // after a stop string, and not the string itself.
  std::string push(std::string_view piece);
  // What was held back.
  std::string finish();

  bool found() const { return found_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool found_ = false;
};

}  // namespace kva
