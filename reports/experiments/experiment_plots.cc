#include "reports/experiments/experiment_plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "reports/evaluation.h"
#include "reports/experiments/experiment_summary.h"
#include "reports/plot_parts.h"
#include "reports/text_format.h"
#include "runtime/io/file.h"

namespace kva {
namespace {

using Json = nlohmann::ordered_json;
using Rows = std::vector<std::vector<double>>;

constexpr std::size_t kDrawn = 12;  // strategies
constexpr std::size_t kNameLength = 44;
constexpr std::size_t kMostPoints = 2000;  // of a line
constexpr double kMebibyte = 1 << 20;
constexpr double kDrawSeconds = 120;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// The mean at each place over the rows that get so far.
class MeanLine {
 public:
  void add(const Json& row, const char* object, const char* list) {
    const auto part = row.find(object);
    if (part == row.end() || !part->is_object() || !part->contains(list)) return;
    const Json& values = part->at(list);
    if (!values.is_array()) return;
    if (sums_.size() < values.size()) sums_.resize(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!values[i].is_number()) continue;
      sums_[i].first += values[i].get<double>();
      sums_[i].second += 1;
    }
  }
  // [place from 1, value x scale]
  Rows points(double scale) const {
    Rows points;
    const std::size_t every = sums_.size() / kMostPoints + 1;
    for (std::size_t i = 0; i < sums_.size(); i += every)
      if (sums_[i].second > 0)
        points.push_back({static_cast<double>(i + 1), scale * sums_[i].first / sums_[i].second});
    return points;
  }

 private:
  std::vector<std::pair<double, double>> sums_;
};

struct Line {
  std::string name;
  std::string color;
  MeanLine token_s, bytes, tokens;
  StrategySummary summary;
};

struct Drawing {
  std::vector<Line> lines;
  std::string subtitle;
};

Drawing drawing_of(const std::vector<const Json*>& rows) {
  // Bytes and times of several models have no mean.
  std::vector<std::string> models;
  const auto text_of = [](const Json& row, const char* member) {
    const auto value = row.find(member);
    return value == row.end() || !value->is_string() ? std::string() : value->get<std::string>();
  };
  const auto model_of = [&](const Json& row) {
    const auto model = row.find("model");
    return model == row.end() || !model->is_object() ? std::string() : text_of(*model, "name");
  };
  std::vector<const Json*> ok;
  for (const Json* row : rows) {
    if (text_of(*row, "status") != "ok") continue;
    ok.push_back(row);
    if (std::find(models.begin(), models.end(), model_of(*row)) == models.end())
      models.push_back(model_of(*row));
  }
  Drawing drawing;
  std::size_t all = 0;
  for (const std::string& model : models) {
    std::vector<const Json*> of_model = ok;
    std::erase_if(of_model, [&](const Json* row) { return model_of(*row) != model; });
    for (StrategySummary& summary : summarize_rows(of_model, false)) {
      if (++all > kDrawn) continue;
      Line line{.name = summary.key.strategy, .color = recipe_color(drawing.lines.size())};
      if (models.size() > 1) line.name += " (" + model + ")";
      line.name = one_line(line.name, kNameLength);
      for (const Json* row : of_model) {
        if (text_of(*row, "strategy") != summary.key.strategy) continue;
        line.token_s.add(*row, "timing", "token_s");
        line.bytes.add(*row, "steps", "bytes");
        line.tokens.add(*row, "steps", "cache_tokens");
      }
      line.summary = std::move(summary);
      drawing.lines.push_back(std::move(line));
    }
  }
  drawing.subtitle =
      one_line(fmt::format("{}; mean of {} trials, later places of those that got so far{}",
                           models.empty()       ? ""
                           : models.size() == 1 ? models[0]
                                                : "several models",
                           ok.size(), all > kDrawn ? fmt::format("; {} of {} strategies", kDrawn, all) : ""),
               160);
  return drawing;
}

void add_legend(const Drawing& drawing, FigureScript& script) {
  for (const Line& line : drawing.lines)
    script.legend(line.name, fmt::format("with lines lw 2.6 lc rgb '{}'", line.color));
}

void line_panel(const Drawing& drawing, MeanLine Line::*member, double scale, FigureScript& script) {
  std::vector<std::string> parts;
  double most = 0;
  for (const Line& line : drawing.lines) {
    const Rows points = (line.*member).points(scale);
    if (points.empty()) continue;
    for (const auto& point : points) most = std::max(most, point[1]);
    parts.push_back(
        fmt::format("{} using 1:2 with lines lw 2.4 lc rgb '{}'", script.data(points), line.color));
  }
  script.add(fmt::format("set xrange [0:*]\nset yrange [0:{:.6g}]", most > 0 ? 1.08 * most : 1.0));
  if (!parts.empty()) script.plot(parts);
}

Figure line_figure(const Drawing& drawing, const std::string& file, const std::string& title,
                   const std::string& x, const std::string& y, MeanLine Line::*member, double scale) {
  Figure figure{file, title, "", ""};
  FigureScript script(file, kPlotWidth, 900, 1, 1);
  script.title(title, drawing.subtitle);
  script.panel(0, 0, "", x, y);
  line_panel(drawing, member, scale, script);
  add_legend(drawing, script);
  figure.script = script.finish();
  return figure;
}

// A point for each strategy: what it saves and what that costs.
void trade_off_panel(const Drawing& drawing, FigureScript& script) {
  std::vector<std::string> parts;
  for (const Line& line : drawing.lines)
    if (std::isfinite(line.summary.cache_ratio) && std::isfinite(line.summary.kl_mean))
      parts.push_back(fmt::format("{} using 1:2 with points pt 7 ps 2 lc rgb '{}'",
                                  script.data({{100 * line.summary.cache_ratio, line.summary.kl_mean}}),
                                  line.color));
  script.add("set xrange [0:*]\nset yrange [0:*]");
  if (!parts.empty())
    script.plot(parts);
  else
    script.add(label_at({0.5, 0.5}, "no quality was scored", "center", kControlColor) +
               "\nset xrange [0:1]\nset yrange [0:1]\nplot 1/0 notitle");
}

Figure combined_figure(const Drawing& drawing) {
  Figure figure{"combined_analysis.png", "Cache, tokens, time and quality", "", ""};
  FigureScript script(figure.file, kPlotWidth, 1300, 2, 2);
  script.gaps(0.09, 0.125);
  script.title(figure.title, drawing.subtitle);
  script.panel(0, 0, "bytes of the cache", "step of the decoder", "MiB");
  line_panel(drawing, &Line::bytes, 1 / kMebibyte, script);
  script.panel(0, 1, "tokens that attention reads", "step of the decoder",
               "tokens, mean of layers and heads");
  line_panel(drawing, &Line::tokens, 1, script);
  script.panel(1, 0, "time of a token", "decoding step", "ms");
  line_panel(drawing, &Line::token_s, 1e3, script);
  script.panel(1, 1, "what is kept, and what that costs", "bytes a token, % of Baseline's",
               "mean KL, nats a token");
  trade_off_panel(drawing, script);
  add_legend(drawing, script);
  figure.script = script.finish();
  return figure;
}

void bar_panel(const Drawing& drawing, int column, const std::string& title, const std::string& unit,
               const std::function<double(const StrategySummary&)>& value, FigureScript& script) {
  script.panel(0, column, title, unit, "");
  std::vector<std::pair<double, std::string>> names;
  std::vector<std::string> parts;
  std::string labels;
  double most = 0;
  for (std::size_t i = 0; i < drawing.lines.size(); ++i) {
    const auto y = static_cast<double>(i);
    names.emplace_back(y, column == 0 ? drawing.lines[i].name : "");
    const double x = value(drawing.lines[i].summary);
    if (!std::isfinite(x)) continue;
    most = std::max(most, x);
    parts.push_back(fmt::format("{} using 1:2:3:4:5:6 with boxxyerror fs solid 0.9 noborder lc rgb '{}'",
                                script.data({{x / 2, y, 0, x, y - 0.36, y + 0.36}}), drawing.lines[i].color));
    labels += fmt::format("set label {} at first {:.6g},{} left offset 0.6,0 font 'DejaVu Sans,12'\n",
                          quote_gnuplot(format_significant(x)), x, i);
  }
  script.add(fmt::format("{}set xrange [0:{:.6g}]\nset yrange [{}.5:-0.5]\nset ytics {} scale 0\nunset xtics",
                         labels, most > 0 ? 1.45 * most : 1.0, drawing.lines.size() - 1, tick_list(names)));
  script.plot(parts.empty() ? std::vector<std::string>{"1/0"} : parts);
}

Figure bars_figure(const Drawing& drawing) {
  Figure figure{"performance_bars.png", "Speed, cache and quality of each strategy", "", ""};
  const int height = 260 + 44 * static_cast<int>(drawing.lines.size());
  FigureScript script(figure.file, kPlotWidth, height, 1, 4);
  script.sides(0.27, 0.985);
  script.gaps(0.025, 0.1);
  script.title(figure.title, drawing.subtitle);
  bar_panel(
      drawing, 0, "generated", "tokens/s", [](const auto& s) { return s.tokens_per_s; }, script);
  bar_panel(
      drawing, 1, "cache at the end", "MiB", [](const auto& s) { return s.cache_bytes / kMebibyte; }, script);
  bar_panel(
      drawing, 2, "perplexity", "of Baseline's answers", [](const auto& s) { return s.perplexity; }, script);
  bar_panel(
      drawing, 3, "mean KL", "nats a token", [](const auto& s) { return s.kl_mean; }, script);
  figure.script = script.finish();
  return figure;
}

}  // namespace

std::vector<Figure> experiment_figures(const std::vector<const Json*>& rows) {
  const Drawing drawing = drawing_of(rows);
  if (drawing.lines.empty()) return {};
  return {
      line_figure(drawing, "timing_comparison.png", "Time of each generated token", "decoding step", "ms",
                  &Line::token_s, 1e3),
      line_figure(drawing, "vram_comparison.png", "Memory of the KV cache (main memory: this ran on a CPU)",
                  "step of the decoder", "MiB held", &Line::bytes, 1 / kMebibyte),
      combined_figure(drawing), bars_figure(drawing)};
}

Figure profile_figure(const Profile& profile) {
  Figure figure{"profile.png", "Memory over the run", "", ""};
  if (profile.points().empty()) return figure;
  Rows process, cache;
  std::string trial;
  const std::size_t every = profile.points().size() / kMostPoints + 1;
  for (std::size_t i = 0; i < profile.points().size(); i += every) {
    const Profile::Point& point = profile.points()[i];
    // Between two trials nothing was looked at: the line breaks.
    if (!cache.empty() && point.trial != trial) {
      process.push_back({point.seconds, kNan});
      cache.push_back({point.seconds, kNan});
    }
    trial = point.trial;
    process.push_back({point.seconds, static_cast<double>(point.process_bytes) / kMebibyte});
    cache.push_back({point.seconds, static_cast<double>(point.cache_bytes) / kMebibyte});
  }
  FigureScript script(figure.file, kPlotWidth, 1000, 2, 1);
  script.title(figure.title,
               "resident memory of the process, and bytes that the cache of the running trial holds");
  for (const auto& [row, title, points, color] : {std::tuple(0, "process", &process, recipe_color(1)),
                                                  std::tuple(1, "cache", &cache, recipe_color(2))}) {
    script.panel(row, 0, title, row == 1 ? "seconds" : "", "MiB");
    script.add("set xrange [0:*]\nset yrange [0:*]");
    script.plot({fmt::format("{} using 1:2 with lines lw 2 lc rgb '{}'", script.data(*points), color)});
  }
  figure.script = script.finish();
  return figure;
}

std::vector<std::string> draw_figures(std::vector<Figure> figures, const std::string& folder) {
  namespace fs = std::filesystem;
  std::erase_if(figures, [](const Figure& figure) { return figure.script.empty(); });
  if (figures.empty()) return {};
  if (!gnuplot_available())
    return {"plots: skipped, gnuplot is not installed (apt-get install gnuplot-nox fonts-dejavu-core)"};
  make_directories(folder);
  std::vector<const Figure*> to_draw;
  for (const Figure& figure : figures) {
    std::error_code ignored;
    fs::remove(fs::path(folder) / figure.file, ignored);
    to_draw.push_back(&figure);
  }
  std::vector<std::string> notes;
  if (const std::string error = run_gnuplot(to_draw, folder, kDrawSeconds); !error.empty())
    notes.push_back("plots: " + error);
  for (const Figure& figure : figures) {
    std::error_code ignored;
    const fs::path path = fs::path(folder) / figure.file;
    const auto size = fs::file_size(path, ignored);
    if (!ignored && size > 0) continue;
    fs::remove(path, ignored);
    notes.push_back(fmt::format("plots: {} was not drawn", figure.file));
  }
  return notes;
}

}  // namespace kva
