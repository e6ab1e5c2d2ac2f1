// run.log: what a run did and when, a line each, on disk as it happens.
#pragma once

#include <cstdio>
#include <memory>
#include <string>

namespace kva {

class RunLog {
 public:
  // Appends to `path`; an empty path logs nothing. Throws InputError where it cannot be opened.
  explicit RunLog(const std::string& path);

  // "2026-11-21T12:00:00Z  message"; what would break the line becomes spaces.
  void line(const std::string& message);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::unique_ptr<std::FILE, Close> file_;
};

// The time of day in UTC as rows and logs write it.
std::string utc_now();

}  // namespace kva
