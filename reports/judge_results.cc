// Scores into the rows of a results folder.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "reports/judge.h"
#include "reports/report_view.h"
#include "reports/trial_rows.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"

namespace kva {
namespace {

namespace fs = std::filesystem;

std::string conversation(const TrialRow& row) {
  if (row.turns.size() == 1) return row.turns.front().prompt;
  std::string text;
  for (std::size_t i = 0; i < row.turns.size(); ++i)
    text += fmt::format("{}Turn {} of the user:\n{}", i > 0 ? "\n\n" : "", i + 1, row.turns[i].prompt);
  return text;
}

std::string answers(const TrialRow& row) {
  if (row.turns.size() == 1) return row.turns.front().text;
  std::string text;
  for (std::size_t i = 0; i < row.turns.size(); ++i)
    text += fmt::format("{}Answer to turn {}:\n{}", i > 0 ? "\n\n" : "", i + 1, row.turns[i].text);
  return text;
}

// The lock that a run holds on its folder.
class FolderLock {
 public:
  explicit FolderLock(const fs::path& folder)
      : file_(::open((folder / ".run.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    if (file_ >= 0 && ::flock(file_, LOCK_EX | LOCK_NB) == 0) return;
    const int error = errno;
    if (file_ >= 0) ::close(file_);
    if (error == EWOULDBLOCK)
      throw InputError(fmt::format(
          "{}: expected no run, found one that writes here now; judge when it has ended", folder.string()));
    throw InputError(
        fmt::format("{}: cannot write in this folder: {}", folder.string(), std::strerror(error)));
  }
  ~FolderLock() { ::close(file_); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int file_;
};

}  // namespace

JudgedRows judge_results(const fs::path& results_folder, Judge& judge, Progress& progress) {
  const fs::path path = results_folder / kTrialFile;
  load_trials(results_folder);  // refuses a file with a bad line before anything is asked
  const FolderLock lock(results_folder);
  const TrialLines file(path);
  JudgedRows counts;
  std::string text;
  int64_t done = 0;
  progress.stage("judge", static_cast<int64_t>(file.lines().size()), "trials");
  for (const TrialLines::Line& line : file.lines()) {
    throw_if_interrupted();
    progress.update(done++);
    const TrialRow row = parse_trial(line);
    if (!row.ok || row.turns.empty()) {
      ++counts.skipped;
      text += std::string(line.text) + "\n";
      continue;
    }
    if (row.judge.model == judge.model() && row.judge.rubric == judge.rubric()) {
      ++counts.kept;
      text += std::string(line.text) + "\n";
      continue;
    }
    const JudgeVerdict verdict = judge.score(conversation(row), answers(row));
    Json members =
        parse_ordered_json(line.text, line.source, {.max_bytes = int64_t{32} << 20, .max_depth = 16});
    members["judge"] = {{"model", judge.model()},
                        {"rubric", judge.rubric()},
                        {"score", verdict.score},
                        {"reason", verdict.reason}};
    text += members.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    ++counts.judged;
  }
  progress.finish();
  write_text_file(path.string(), text);
  return counts;
}

}  // namespace kva
