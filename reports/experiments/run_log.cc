#include "reports/experiments/run_log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "reports/text_format.h"
#include "runtime/error.h"

namespace kva {

std::string utc_now() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())));
}

RunLog::RunLog(const std::string& path) {
  if (path.empty()) return;
  file_.reset(std::fopen(path.c_str(), "ae"));
  if (!file_) throw InputError(fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
}

void RunLog::line(const std::string& message) {
  if (!file_) return;
  fmt::print(file_.get(), "{}  {}\n", utc_now(), one_line(message, 4000));
  std::fflush(file_.get());
}

}  // namespace kva
