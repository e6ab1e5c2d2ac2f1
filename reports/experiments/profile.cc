#include "reports/experiments/profile.h"

#include <fmt/format.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

namespace kva {
namespace {

// Resident pages are the second number of statm.
int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0;
  file >> size >> resident;
  return file ? resident * ::sysconf(_SC_PAGESIZE) : 0;
}

std::string quoted_csv(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

}  // namespace

void Profile::add(const StepReport& step) {
  points_.push_back({.seconds = seconds_since(started_),
                     .trial = step.trial.id,
                     .strategy = strategy_,
                     .step = step.step,
                     .prompt = step.prompt,
                     .tokens = step.tokens,
                     .cache_bytes = step.bytes,
                     .process_bytes = resident_bytes()});
}

std::string Profile::csv() const {
  std::string text = "seconds,trial,strategy,step,stage,tokens,cache_bytes,process_bytes\n";
  for (const Point& point : points_)
    fmt::format_to(std::back_inserter(text), "{:.6f},{},{},{},{},{},{},{}\n", point.seconds, point.trial,
                   quoted_csv(point.strategy), point.step, point.prompt ? "prefill" : "decode", point.tokens,
                   point.cache_bytes, point.process_bytes);
  return text;
}

}  // namespace kva
