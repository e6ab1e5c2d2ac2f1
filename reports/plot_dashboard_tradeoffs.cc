// Picture of a dashboard: quality against bytes and time, each strategy a point.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "reports/ab_scales.h"
#include "reports/label_layout.h"
#include "reports/plot_dashboard.h"
#include "reports/plot_parts.h"
#include "reports/screen.h"

namespace kva {
namespace {

using Rows = std::vector<std::vector<double>>;

constexpr double kLetterWidth = 9.7;  // of the names' font, in pixels
constexpr double kLineHeight = 20;
constexpr const char* kFrontColor = "#1f2937";

// One panel of points with their names, and the front of those that no other beats in x and y.
class TradeoffPanel {
 public:
  TradeoffPanel(const DrawnGroups& drawn, FigureScript& script) : drawn_(drawn), script_(script) {}

  // Groups that lack either have no point.
  void add(std::size_t group, double x, double kl) {
    if (std::isfinite(x) && std::isfinite(kl)) marks_.push_back({group, x, kl});
  }
  bool empty() const { return marks_.empty(); }

  void draw(int row, const std::string& x_label) {
    std::vector<double> values;
    for (const Mark& mark : marks_) values.push_back(mark.kl);
    scale_ = log_scale(values);
    for (const Mark& mark : marks_) most_ = std::max(most_, mark.x);
    most_ *= 1.12;
    if (most_ <= 0) most_ = 1;
    script_.panel(row, 0, "", x_label, "mean KL (nats, log scale)");
    script_.add(
        fmt::format("set xtics autofreq\nset xrange [0:{:.6g}]\nset yrange [{:.6g}:{:.6g}]\nset ytics {}",
                    most_, scale_.low, scale_.high, tick_list(scale_.ticks)));
    std::vector<std::string> parts;
    fronts(parts);
    for (const Mark& mark : marks_)
      parts.push_back(fmt::format("{} using 1:2 with points pt 7 ps 1.7 lc rgb '{}'",
                                  script_.data({{mark.x, scale_.at(mark.kl)}}), drawn_.colors[mark.group]));
    names();
    script_.plot(parts);
  }

 private:
  struct Mark {
    std::size_t group;
    double x;
    double kl;
  };

  const TrialGroup& group_of(const Mark& mark) const { return *drawn_.groups[mark.group]; }

  PanelPlace pixels(const Mark& mark) const {
    return {script_.panel_width() * mark.x / most_,
            script_.panel_height() * (1 - (scale_.at(mark.kl) - scale_.low) / (scale_.high - scale_.low))};
  }

  // One for each model: strategies on different models do not compete.
  void fronts(std::vector<std::string>& parts) {
    std::set<std::string> models;
    for (const Mark& first : marks_) {
      if (!models.insert(group_of(first).model).second) continue;
      const std::vector<Mark> front = front_of(group_of(first).model);
      Rows line;
      for (const Mark& mark : front) line.push_back({mark.x, scale_.at(mark.kl)});
      const std::string block = script_.data(line);
      parts.push_back(fmt::format("{} using 1:2 with lines lw 2 {} lc rgb '{}'", block,
                                  drawn_.dashes[first.group], kFrontColor));
      parts.push_back(
          fmt::format("{} using 1:2 with points pt 6 ps 2.6 lw 2 lc rgb '{}'", block, kFrontColor));
      for (std::size_t i = 1; i < front.size(); ++i) keep_off(pixels(front[i - 1]), pixels(front[i]));
    }
  }

  std::vector<Mark> front_of(const std::string& model) const {
    std::vector<Mark> kept;
    const auto beats = [&](const Mark& a, const Mark& b) {
      return group_of(a).model == model && a.x <= b.x && a.kl <= b.kl && (a.x < b.x || a.kl < b.kl);
    };
    for (const Mark& mark : marks_)
      if (group_of(mark).model == model &&
          std::none_of(marks_.begin(), marks_.end(), [&](const Mark& other) { return beats(other, mark); }))
        kept.push_back(mark);
    std::sort(kept.begin(), kept.end(), [](const Mark& a, const Mark& b) { return a.x < b.x; });
    return kept;
  }

  // Small boxes along a line, so that names keep off it.
  void keep_off(const PanelPlace& a, const PanelPlace& b) {
    const double steps = std::max(1.0, std::ceil(std::hypot(b.x - a.x, b.y - a.y) / 5));
    for (double i = 0; i <= steps; ++i) {
      const double x = a.x + (b.x - a.x) * i / steps, y = a.y + (b.y - a.y) * i / steps;
      taken_.push_back({x - 2, y - 2, x + 2, y + 2});
    }
  }

  void names() {
    const double width = script_.panel_width(), height = script_.panel_height();
    std::vector<LabelledPoint> points;
    std::vector<std::string> texts;
    for (const Mark& mark : marks_) {
      texts.push_back(drawn_.names[mark.group]);
      const PanelPlace at = pixels(mark);
      points.push_back(
          {at.x, at.y, kLetterWidth * static_cast<double>(columns_of(texts.back())), kLineHeight});
    }
    const auto labels = place_labels(points, {2, 2, width - 2, height - 2}, taken_);
    const auto place = [&](double x, double y) { return PanelPlace{x / width, 1 - y / height}; };
    for (std::size_t i = 0; i < marks_.size(); ++i) {
      const PlacedLabel& label = labels[i];
      const std::string& color = drawn_.colors[marks_[i].group];
      const char* align = label.side > 0 ? "left" : label.side < 0 ? "right" : "center";
      const double x = label.side > 0   ? label.box.left
                       : label.side < 0 ? label.box.right
                                        : (label.box.left + label.box.right) / 2;
      script_.add(label_at(place(x, (label.box.top + label.box.bottom) / 2), texts[i], align, color));
      if (label.joined)
        script_.add(line_between(place(points[i].x, points[i].y), place(label.line_x, label.line_y),
                                 fmt::format("lw 1 lc rgb '{}'", color)));
    }
  }

  const DrawnGroups& drawn_;
  FigureScript& script_;
  std::vector<Mark> marks_;
  QualityScale scale_;
  double most_ = 0;
  std::vector<LabelBox> taken_;
};

}  // namespace

Figure tradeoffs_figure(const DrawnGroups& drawn, const std::vector<TrialGroup>& groups) {
  Figure figure{
      "dashboard_tradeoffs.png", "Quality against bytes and time",
      "Each strategy a point: further left holds or takes less, further down loses less. Ringed and "
      "joined: the front, which no other strategy beats in both.",
      ""};
  FigureScript script(figure.file, kPlotWidth, 1400, 2, 1);
  script.gaps(0.05, 0.07);
  script.sides(0.085, 0.985);
  script.title(figure.title, dashboard_subtitle(drawn, "bytes and time as shares of Baseline's"));
  TradeoffPanel bytes(drawn, script), time(drawn, script);
  for (std::size_t i = 0; i < drawn.groups.size(); ++i) {
    const TrialGroup& group = *drawn.groups[i];
    const TrialGroup* baseline = baseline_of(groups, group.model);
    if (!baseline) continue;
    const double kl =
        group.baseline ? 0.0
                       : sample_mean(group, [](const TrialRow& r) { return r.quality.kl_mean; }).value.value;
    bytes.add(i, 100 + 100 * sample_change(group, *baseline, token_bytes).value.value, kl);
    time.add(
        i,
        100 +
            100 *
                sample_change(group, *baseline, [](const TrialRow& r) { return r.token_time(); }).value.value,
        kl);
  }
  if (bytes.empty() && time.empty()) return figure;
  if (!bytes.empty()) bytes.draw(0, "bytes held a token (% of Baseline's)");
  if (!time.empty()) time.draw(1, "time a generated token (% of Baseline's)");
  script.legend("the front", fmt::format("with linespoints lw 2 pt 6 ps 2 lc rgb '{}'", kFrontColor));
  figure.script = script.finish();
  return figure;
}

}  // namespace kva
