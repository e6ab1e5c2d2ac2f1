// How far a long job is, on stderr: a bar that redraws on a terminal, plain lines elsewhere, or nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <mutex>
#include <string>

namespace kva {

// One stage at a time: stage(), any number of update(), finish(). A new stage ends the one before. update()
// is cheap enough for every chunk of work and may come from any thread.
class Progress {
 public:
  enum class Mode {
    kAuto,   // kBar where `out` is a terminal, else kLines
    kBar,    // redraws one line, at most ten times a second
    kLines,  // a line every five seconds at most, and one at the end of a stage
    kQuiet,
    kVerbose,  // as kAuto, and detail() prints
  };
  // Called instead of printing, at most ten times a second and at the end of a stage.
  using Callback = std::function<void(const std::string& stage, int64_t done, int64_t total)>;

  explicit Progress(Mode mode = Mode::kAuto, std::FILE* out = stderr);
  explicit Progress(Callback callback);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `total` 0: not known, no share and no remaining time. `unit` names what is counted: "tokens", "pairs".
  void stage(const std::string& label, int64_t total, const std::string& unit);
  void update(int64_t done);  // since the stage began, not since the last call
  void finish();

  // Removes the bar, so that another line can be printed; the next update draws it again.
  void clear_line();

  // A line about the work, "12 prompts were cut to 256 tokens"; nothing in quiet mode.
  void say(const std::string& text);
  // A line for those who asked for more; only in verbose mode.
  void detail(const std::string& text);

  // What is printed, without colour or line ends: "prefill  [=====     ]  50%  1,024/2,048 tokens  512/s  2 s
  // left". `bar_columns` 0 leaves the bar out. Pure, for tests.
  static std::string line(const std::string& label, int64_t done, int64_t total, const std::string& unit,
                          double elapsed_s, int bar_columns);

 private:
  using Clock = std::chrono::steady_clock;
  void show(bool last);
  void finish_locked();

  std::mutex mutex_;
  Mode mode_;
  bool verbose_ = false;
  std::FILE* out_;
  Callback callback_;
  std::string label_;
  std::string unit_;
  int64_t total_ = 0;
  int64_t done_ = 0;
  bool running_ = false;
  bool drawn_ = false;
  Clock::time_point started_;
  Clock::time_point shown_;
};

}  // namespace kva
