#include "reports/gnuplot.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "reports/text_format.h"
#include "runtime/clock.h"
#include "runtime/interrupt.h"
#include "runtime/io/file.h"

extern char** environ;

namespace kva {
namespace {

constexpr const char* kScript = "figures.gp";
constexpr const char* kErrors = "gnuplot.err";
// From the figure's edges, in pixels.
constexpr int kTitleAt = 36;
constexpr int kSubtitleAt = 78;
constexpr int kAbovePanels = 150;
constexpr int kBelowPanels = 150;
constexpr int kLegendAt = 42;

class Child {
 public:
  explicit Child(pid_t id) : id_(id) {}
  ~Child() {
    if (id_ <= 0) return;
    ::kill(id_, SIGKILL);
    ::waitpid(id_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // True once it has ended.
  bool ended(int& status) {
    const pid_t got = ::waitpid(id_, &status, WNOHANG);
    if (got == 0 || (got < 0 && errno == EINTR)) return false;
    id_ = 0;
    return true;
  }

 private:
  pid_t id_;
};

pid_t start_gnuplot(const std::string& folder) {
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, 2, kErrors, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  std::string program = "gnuplot", settings = "--default-settings", script = kScript;
  std::array<char*, 4> arguments = {program.data(), settings.data(), script.data(), nullptr};
  pid_t id = -1;
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  set_child_signal_mask(attributes);
  const int error = ::posix_spawnp(&id, "gnuplot", &actions, &attributes, arguments.data(), environ);
  posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  return error == 0 ? id : -1;
}

std::string first_error(const std::string& path) {
  std::string text = read_text_file(path, 1 << 20);
  const auto at = text.find("line ");
  if (at != std::string::npos) text = text.substr(at);
  return one_line(text.substr(0, text.find('\n')), 160);
}

std::string cell(double value) { return std::isfinite(value) ? fmt::format("{:.6g}", value) : "NaN"; }

}  // namespace

bool gnuplot_available() {
  const char* path = std::getenv("PATH");
  const std::string_view folders = path ? path : "";
  for (std::size_t begin = 0; begin <= folders.size();) {
    const std::size_t end = std::min(folders.find(':', begin), folders.size());
    const std::string candidate = std::string(folders.substr(begin, end - begin)) + "/gnuplot";
    if (::access(candidate.c_str(), X_OK) == 0) return true;
    begin = end + 1;
  }
  return false;
}

std::string run_gnuplot(const std::vector<const Figure*>& figures, const std::string& folder,
                        double timeout_s) {
  std::string script;
  for (const Figure* figure : figures) script += figure->script;
  write_text_file(folder + "/" + kScript, script);
  const pid_t id = start_gnuplot(folder);
  if (id < 0) return "gnuplot could not be started";
  Child child(id);
  const auto started = Clock::now();
  int status = 0;
  std::string error;
  while (!child.ended(status)) {
    throw_if_interrupted();
    if (seconds_since(started) > timeout_s)
      return fmt::format("gnuplot did not finish within {} and was ended", format_seconds(timeout_s));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  throw_if_interrupted();
  const std::string errors = folder + "/" + kErrors;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    error = fmt::format("gnuplot failed: {}",
                        ::access(errors.c_str(), R_OK) == 0 ? first_error(errors) : "it did not start");
  ::unlink(errors.c_str());
  ::unlink((folder + "/" + kScript).c_str());
  return error;
}

std::string series_color(std::string_view slug) {
  if (slug == "v") return "#d9730d";
  return slug == "k-plain" ? "#0d9488" : "#2f5fd0";
}

std::string set_color(std::size_t index) {
  constexpr std::array<const char*, 8> kColors = {"#7c4dcc", "#d1345b", "#2a9d5c", "#c99700",
                                                  "#1f8fc4", "#a0522d", "#5b6b8c", "#b83fa0"};
  return kColors[index % kColors.size()];
}

std::string threshold_color(std::size_t index, std::size_t count) {
  constexpr std::array<const char*, 5> kColors = {"#8ecae6", "#3a9bdc", "#2f5fd0", "#22267b", "#0b0d33"};
  return kColors[std::min(count > 1 ? index * (std::min(count, kColors.size()) - 1) / (count - 1) : 2,
                          kColors.size() - 1)];
}

std::string part_color(std::size_t part) {
  constexpr std::array<const char*, 5> kColors = {"#2f5fd0", "#d9730d", "#7c4dcc", "#c99700", "#9ca3af"};
  return kColors[part % kColors.size()];
}

std::string recipe_color(std::size_t row) {
  constexpr std::array<const char*, 11> kColors = {"#2f5fd0", "#d9730d", "#2a9d5c", "#d1345b",
                                                   "#7c4dcc", "#1f8fc4", "#c99700", "#b83fa0",
                                                   "#0d9488", "#a0522d", "#65a30d"};
  return row == 0 ? kControlColor : kColors[(row - 1) % kColors.size()];
}

FigureScript::FigureScript(const std::string& file, int width, int height, int rows, int columns)
    : width_(width), height_(height), rows_(rows), columns_(columns) {
  head_ = fmt::format(
      "reset\nset terminal pngcairo size {},{} font 'DejaVu Sans,14' background '#ffffff' noenhanced\n"
      "set output {}\nset encoding utf8\nset border 3 lc rgb '#4b5563'\nset tics nomirror out textcolor rgb "
      "'#374151'\n"
      "set grid lc rgb '#e5e7eb' lw 1 lt 1\nset style line 100 lc rgb '{}' dt 2 lw 2\nunset key\n",
      width, height, quote_gnuplot(file), kControlColor);
}

void FigureScript::title(const std::string& title, const std::string& subtitle) {
  const auto from_top = [&](int pixels) { return 1 - static_cast<double>(pixels) / height_; };
  title_ = fmt::format(
      "set label 9001 {} at screen {}, {:.4f} left font 'DejaVu Sans Bold,19' textcolor rgb '#111827' "
      "noenhanced\n"
      "set label 9002 {} at screen {}, {:.4f} left font 'DejaVu Sans,13' textcolor rgb '#6b7280' "
      "noenhanced\n",
      quote_gnuplot(title), 0.03, from_top(kTitleAt), quote_gnuplot(subtitle), 0.03, from_top(kSubtitleAt));
}

void FigureScript::gaps(double horizontal, double vertical) {
  gap_x_ = horizontal;
  gap_y_ = vertical;
}

double FigureScript::panel_height() const {
  return (height_ * (1 - gap_y_ * (rows_ - 1)) - kAbovePanels - kBelowPanels) / rows_;
}

std::string FigureScript::data(const std::vector<std::vector<double>>& rows) {
  std::string name = fmt::format("$d{}", data_count_++);
  blocks_ += name + " << EOD\n";
  for (const auto& row : rows) {
    std::string line;
    for (const double value : row) {
      if (!line.empty()) line += ' ';
      line += cell(value);
    }
    blocks_ += line + "\n";
  }
  blocks_ += "EOD\n";
  return name;
}

void FigureScript::panel(int row, int column, const std::string& title, const std::string& x_label,
                         const std::string& y_label) {
  const double width = panel_width() / width_;
  const double height = panel_height() / height_;
  const double left = left_ + column * (width + gap_x_);
  const double top = 1 - static_cast<double>(kAbovePanels) / height_ - row * (height + gap_y_);
  script_ += "unset label\nunset arrow\n";
  if (panels_++ == 0) script_ += title_;
  script_ += fmt::format(
      "set lmargin at screen {:.4f}\nset rmargin at screen {:.4f}\nset tmargin at screen {:.4f}\nset bmargin "
      "at screen {:.4f}\n"
      "set title {} font 'DejaVu Sans Bold,14' textcolor rgb '#1f2937' offset 0,-0.4\n"
      "set xlabel {} textcolor rgb '#374151' offset 0,0.3\nset ylabel {} textcolor rgb '#374151' offset "
      "0.8,0\n",
      left, left + width, top, top - height, quote_gnuplot(title), quote_gnuplot(x_label),
      quote_gnuplot(y_label));
}

void FigureScript::plot(const std::vector<std::string>& parts) {
  std::string command = "plot ";
  for (std::size_t i = 0; i < parts.size(); ++i)
    command += fmt::format("{}{} notitle", i == 0 ? "" : ", \\\n     ", parts[i]);
  script_ += command + "\n";
}

void FigureScript::legend(const std::string& label, const std::string& style) {
  legend_.emplace_back(label, style);
}

std::string FigureScript::finish() {
  std::string closing;
  if (!legend_.empty()) {
    // A panel of its own without axes: the legend never takes room from the data.
    closing = fmt::format(
        "set lmargin at screen 0.02\nset rmargin at screen 0.98\nset tmargin at screen {0:.4f}\nset bmargin "
        "at "
        "screen 0.0\n"
        "unset title\nunset xlabel\nunset ylabel\nunset tics\nunset border\nunset grid\nunset label\nunset "
        "object\n"
        "unset arrow\nunset colorbox\nset logscale\nunset logscale\n"
        "set xrange [0:1]\nset yrange [0:1]\n"
        "set key at screen 0.5,{1:.4f} center center horizontal Left reverse samplen 3 width 2 spacing 1.3 "
        "textcolor rgb '#1f2937' "
        "noenhanced\n"
        "plot ",
        1.7 * kLegendAt / height_, static_cast<double>(kLegendAt) / height_);
    for (std::size_t i = 0; i < legend_.size(); ++i)
      closing += fmt::format("{}1/0 {} title {}", i == 0 ? "" : ", ", legend_[i].second,
                             quote_gnuplot(legend_[i].first));
    closing += "\n";
  }
  return head_ + blocks_ + "set multiplot\n" + script_ + closing + "unset multiplot\nset output\n";
}

}  // namespace kva
