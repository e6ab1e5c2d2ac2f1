#include "reports/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "reports/text_format.h"

namespace kva {
namespace {

constexpr std::chrono::milliseconds kRedraw{100};
constexpr std::chrono::seconds kBetweenLines{5};
constexpr int kBarColumns = 24;
constexpr const char* kEraseLine = "\r\033[2K";

}  // namespace

Progress::Progress(Mode mode, std::FILE* out) : mode_(mode), verbose_(mode == Mode::kVerbose), out_(out) {
  if (mode_ == Mode::kAuto || verbose_) mode_ = ::isatty(::fileno(out_)) != 0 ? Mode::kBar : Mode::kLines;
}

Progress::Progress(Callback callback) : mode_(Mode::kQuiet), out_(stderr), callback_(std::move(callback)) {}

// A stage that is still running ends without its closing line: the work was given up.
Progress::~Progress() { clear_line(); }

void Progress::stage(const std::string& label, int64_t total, const std::string& unit) {
  const std::lock_guard lock(mutex_);
  finish_locked();
  label_ = label;
  unit_ = unit;
  total_ = std::max<int64_t>(0, total);
  done_ = 0;
  running_ = true;
  started_ = shown_ = Clock::now();
  if (mode_ == Mode::kBar || callback_) show(false);
}

void Progress::update(int64_t done) {
  const std::lock_guard lock(mutex_);
  if (!running_) return;
  done_ = std::max(done_, done);
  const bool often = mode_ == Mode::kBar || callback_;
  const auto now = Clock::now();
  if (now - shown_ < (often ? Clock::duration(kRedraw) : Clock::duration(kBetweenLines))) return;
  shown_ = now;
  show(false);
}

void Progress::finish() {
  const std::lock_guard lock(mutex_);
  finish_locked();
}

void Progress::finish_locked() {
  if (!running_) return;
  if (total_ > 0) done_ = total_;
  show(true);
  running_ = false;
}

void Progress::say(const std::string& text) {
  clear_line();
  if (mode_ == Mode::kQuiet || callback_) return;
  std::fprintf(out_, "%s\n", text.c_str());
}

void Progress::detail(const std::string& text) {
  if (verbose_) say(text);
}

void Progress::clear_line() {
  const std::lock_guard lock(mutex_);
  if (!drawn_) return;
  std::fputs(kEraseLine, out_);
  std::fflush(out_);
  drawn_ = false;
}

void Progress::show(bool last) {
  if (callback_) return callback_(label_, done_, total_);
  if (mode_ == Mode::kQuiet) return;
  const double elapsed_s = std::chrono::duration<double>(Clock::now() - started_).count();
  if (last) {
    const std::string rate = elapsed_s > 0.005 && done_ > 0
                                 ? fmt::format(", {}/s", format_rate(static_cast<double>(done_) / elapsed_s))
                                 : "";
    // A stage that counts nothing says only how long it took.
    const std::string counted =
        unit_.empty() ? "" : fmt::format("{} {} in ", format_count(static_cast<double>(done_)), unit_);
    fmt::print(out_, "{}{:<12} {}{}{}\n", drawn_ ? kEraseLine : "", label_, counted,
               format_seconds(elapsed_s), rate);
    drawn_ = false;
  } else if (mode_ == Mode::kBar) {
    fmt::print(out_, "{}{}", kEraseLine, line(label_, done_, total_, unit_, elapsed_s, kBarColumns));
    drawn_ = true;
  } else {
    fmt::print(out_, "{}\n", line(label_, done_, total_, unit_, elapsed_s, 0));
  }
  std::fflush(out_);
}

std::string Progress::line(const std::string& label, int64_t done, int64_t total, const std::string& unit,
                           double elapsed_s, int bar_columns) {
  std::string text = fmt::format("{:<12} ", label);
  const double share =
      total > 0 ? std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0) : 0;
  if (total > 0 && bar_columns > 0) {
    const auto full = static_cast<std::size_t>(share * bar_columns);
    text +=
        "[" + std::string(full, '=') + std::string(static_cast<std::size_t>(bar_columns) - full, ' ') + "] ";
  }
  if (total > 0) {
    text += fmt::format("{:3.0f}%  {}/{} {}", 100 * share, format_count(static_cast<double>(done)),
                        format_count(static_cast<double>(total)), unit);
  } else if (!unit.empty()) {
    text += fmt::format("{} {}", format_count(static_cast<double>(done)), unit);
  }
  if (done <= 0 || elapsed_s < 0.2) return text;
  const double rate = static_cast<double>(done) / elapsed_s;
  text += fmt::format("  {}/s", format_rate(rate));
  if (done < total)
    text += fmt::format("  {} left", format_seconds(static_cast<double>(total - done) / rate));
  return text;
}

}  // namespace kva
