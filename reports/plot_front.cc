// The figure of quality against bytes: two panels of points with their names.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "reports/ab_scales.h"
#include "reports/ab_view.h"
#include "reports/label_layout.h"
#include "reports/plot_figures.h"
#include "reports/plot_parts.h"
#include "reports/screen.h"
#include "reports/text_format.h"

namespace kva {
namespace {

constexpr int kHeight = 1400;
constexpr double kLetterWidth = 9.7;  // of the names' font, in pixels
constexpr double kLineHeight = 20;
constexpr const char* kFrontColor = "#1f2937";

using Rows = std::vector<std::vector<double>>;

struct Mark {
  double bits;
  Interval quality;
  std::size_t row;
  bool on_front;
  std::string family;
  std::string name;
};

// Recipes without effect stand where the baseline does, whose name counts them.
std::vector<Mark> marks_of(const Json& report, const char* key) {
  std::vector<Mark> marks;
  const auto rows = drawn_rows(report);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Interval quality = row_interval(*rows[i], key);
    if (!std::isfinite(quality.value) || text_is(*rows[i], "effect", "no effect")) continue;
    marks.push_back({number_at(*rows[i], "bits_per_value"), quality, i, rows[i]->at("on_front").get<bool>(),
                     text_at(*rows[i], "family"), short_recipe(*rows[i], kNameBytes)});
    const auto idle = static_cast<std::size_t>(std::count_if(
        rows.begin(), rows.end(), [](const Json* row) { return text_is(*row, "effect", "no effect"); }));
    if (i == 0 && idle > 0) marks.back().name += fmt::format(" and {} without effect", idle);
  }
  return marks;
}

std::vector<double> values_of(const std::vector<Mark>& marks) {
  std::vector<double> values;
  for (const Mark& mark : marks)
    values.insert(values.end(), {mark.quality.value, mark.quality.low, mark.quality.high});
  return values;
}

// One panel: its axes, and where things stand on it in pixels.
class QualityPanel {
 public:
  // `level`: a value with a dashed line across.
  QualityPanel(std::vector<Mark> marks, QualityScale scale, double level, FigureScript& script)
      : marks_(std::move(marks)), scale_(std::move(scale)), level_(scale_.at(level)), script_(script) {
    low_bits_ = marks_.front().bits;
    for (const Mark& mark : marks_) {
      low_bits_ = std::min(low_bits_, mark.bits);
      high_bits_ = std::max(high_bits_, mark.bits);
    }
    const double margin = std::max(0.3, 0.07 * (high_bits_ - low_bits_));
    low_bits_ = std::max(0.0, low_bits_ - margin);
    high_bits_ += margin;
  }

  void draw(int row, const std::string& x_label, const std::string& y_label) {
    script_.panel(row, 0, "", x_label, y_label);
    script_.add(fmt::format(
        "set xrange [{:.6g}:{:.6g}]\nset xtics autofreq\nset yrange [{:.6g}:{:.6g}]\nset ytics {}", low_bits_,
        high_bits_, scale_.low, scale_.high, tick_list(scale_.ticks)));
    level_line();
    families();
    if (scale_.kind == QualityScale::Kind::kLog) front();
    for (const Mark& mark : marks_) point(mark);
    names();
    script_.plot(parts_);
  }

 private:
  PanelPlace pixels(double bits, double at) const {
    return {script_.panel_width() * (bits - low_bits_) / (high_bits_ - low_bits_),
            script_.panel_height() * (1 - (at - scale_.low) / (scale_.high - scale_.low))};
  }

  // Small boxes along a line, so that names keep off it.
  void keep_off(const PanelPlace& a, const PanelPlace& b) {
    const double steps = std::max(1.0, std::ceil(std::hypot(b.x - a.x, b.y - a.y) / 5));
    for (double i = 0; i <= steps; ++i) {
      const double x = a.x + (b.x - a.x) * i / steps, y = a.y + (b.y - a.y) * i / steps;
      taken_.push_back({x - 2, y - 2, x + 2, y + 2});
    }
  }

  void polyline(const Rows& points, const std::string& style) {
    parts_.push_back(fmt::format("{} using 1:2 with {}", script_.data(points), style));
    for (std::size_t i = 1; i < points.size(); ++i)
      keep_off(pixels(points[i - 1][0], points[i - 1][1]), pixels(points[i][0], points[i][1]));
  }

  void level_line() {
    if (level_ >= scale_.low && level_ <= scale_.high)
      polyline({{low_bits_, level_}, {high_bits_, level_}},
               fmt::format("lines {} lc rgb '{}'", kDashed, kControlColor));
  }

  // Rows that differ in numbers alone, joined in the order of their bytes.
  void families() {
    std::map<std::string, std::pair<std::size_t, Rows>> curves;
    for (const Mark& mark : marks_) {
      auto& curve = curves.try_emplace(mark.family, mark.row, Rows()).first->second;
      curve.second.push_back({mark.bits, scale_.at(mark.quality.value)});
    }
    for (auto& [family, curve] : curves) {
      if (curve.second.size() < 2) continue;
      std::sort(curve.second.begin(), curve.second.end());
      polyline(curve.second, fmt::format("lines {} lc rgb '{}'", kDotted, recipe_color(curve.first)));
    }
  }

  void front() {
    Rows front;
    for (const Mark& mark : marks_)
      if (mark.on_front) front.push_back({mark.bits, scale_.at(mark.quality.value)});
    if (front.empty()) return;
    std::sort(front.begin(), front.end());
    polyline(front, fmt::format("lines lw 2 lc rgb '{}'", kFrontColor));
    parts_.push_back(fmt::format("{} using 1:2 with points pt 6 ps 2.4 lw 2 lc rgb '{}'", script_.data(front),
                                 kFrontColor));
  }

  void point(const Mark& mark) {
    const std::string color = recipe_color(mark.row);
    const Interval& quality = mark.quality;
    const std::string block = script_.data(
        {{mark.bits, scale_.at(quality.value), scale_.at(quality.low), scale_.at(quality.high)}});
    if (std::isfinite(quality.low)) {
      parts_.push_back(fmt::format("{} using 1:2:3:4 with yerrorbars pt 0 lw 2 lc rgb '{}'", block, color));
      keep_off(pixels(mark.bits, scale_.at(quality.low)), pixels(mark.bits, scale_.at(quality.high)));
    }
    parts_.push_back(fmt::format("{} using 1:2 with points pt 7 ps 1.5 lc rgb '{}'", block, color));
  }

  // Names beside their points, joined by a line where they had to move away.
  void names() {
    const double width = script_.panel_width(), height = script_.panel_height();
    std::vector<LabelledPoint> points;
    for (const Mark& mark : marks_) {
      const PanelPlace at = pixels(mark.bits, scale_.at(mark.quality.value));
      points.push_back({at.x, at.y, kLetterWidth * static_cast<double>(columns_of(mark.name)), kLineHeight});
    }
    const auto labels = place_labels(points, {2, 2, width - 2, height - 2}, taken_);
    const auto place = [&](double x, double y) { return PanelPlace{x / width, 1 - y / height}; };
    for (std::size_t i = 0; i < marks_.size(); ++i) {
      const PlacedLabel& label = labels[i];
      const std::string color = recipe_color(marks_[i].row);
      const char* align = label.side > 0 ? "left" : label.side < 0 ? "right" : "center";
      const double x = label.side > 0   ? label.box.left
                       : label.side < 0 ? label.box.right
                                        : (label.box.left + label.box.right) / 2;
      script_.add(label_at(place(x, (label.box.top + label.box.bottom) / 2), marks_[i].name, align, color));
      if (label.joined)
        script_.add(line_between(place(points[i].x, points[i].y), place(label.line_x, label.line_y),
                                 fmt::format("lw 1 lc rgb '{}'", color)));
    }
  }

  std::vector<Mark> marks_;
  QualityScale scale_;
  double level_;
  FigureScript& script_;
  double low_bits_ = 0;
  double high_bits_ = 0;
  std::vector<std::string> parts_;
  std::vector<LabelBox> taken_;
};

}  // namespace

Figure quality_front_figure(const Json& report) {
  Figure figure{
      "quality_front.png", "Quality against bytes",
      "Every recipe with its 95% interval: mean KL against the base (above, with the front of recipes that "
      "no other beats in both) and change of perplexity (below). Dashed: the noise floor, and no change; "
      "dotted: recipes that differ in numbers alone.",
      ""};
  const auto kl = marks_of(report, "kl_mean"), change = marks_of(report, "delta_perplexity");
  if (kl.empty() || change.empty()) return figure;
  const double floor = noise_floor_kl(report);
  std::vector<double> kl_values = values_of(kl);
  if (floor > 0) kl_values.push_back(floor);
  FigureScript script(figure.file, kPlotWidth, kHeight, 2, 1);
  script.gaps(0.05, 0.05);
  script.sides(0.085, 0.985);
  script.title(figure.title, ab_subtitle(report, "95% intervals · further left and lower is better"));
  QualityPanel(kl, log_scale(kl_values), floor, script).draw(0, "", "mean KL (nats, log scale)");
  QualityPanel(change, change_scale(values_of(change)), 0, script)
      .draw(1, "bits a cached number takes, everything held counted", "change of perplexity");
  script.legend("the front", fmt::format("with linespoints lw 2 pt 6 ps 2 lc rgb '{}'", kFrontColor));
  script.legend("noise floor, no change", fmt::format("with lines {} lc rgb '{}'", kDashed, kControlColor));
  script.legend("one recipe, other numbers",
                fmt::format("with lines {} lc rgb '{}'", kDotted, kControlColor));
  figure.script = script.finish();
  return figure;
}

}  // namespace kva
