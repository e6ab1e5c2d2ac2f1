// Memory and time over a whole run, step by step.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "reports/experiments/trial_run.h"
#include "runtime/clock.h"

namespace kva {

class Profile {
 public:
  void add(const StepReport& step);

  struct Point {
    double seconds = 0;  // since the profile began
    std::string trial;
    std::string strategy;
    int64_t step = 0;
    bool prompt = false;
    int64_t tokens = 0;
    int64_t cache_bytes = 0;
    int64_t process_bytes = 0;  // resident now
  };
  const std::vector<Point>& points() const { return points_; }

  // One line a step.
  std::string csv() const;

  void name_strategy(const std::string& strategy) { strategy_ = strategy; }

 private:
  Clock::time_point started_ = Clock::now();
  std::string strategy_;
  std::vector<Point> points_;
};

}  // namespace kva
