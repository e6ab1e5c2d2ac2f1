// Pictures of a dashboard: figures of each strategy as points, boxes and bars.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "reports/ab_scales.h"
#include "reports/label_layout.h"
#include "reports/plot_dashboard.h"
#include "reports/plot_parts.h"
#include "reports/screen.h"
#include "reports/text_format.h"

namespace kva {
namespace {

using Rows = std::vector<std::vector<double>>;

constexpr double kLetterWidth = 9.7;  // of the names' font, in pixels
constexpr double kLineHeight = 20;
constexpr const char* kFrontColor = "#1f2937";

// A panel with a line of its own for each strategy, the first on top.
struct RowPanel {
  std::string title;
  std::string x_label;
  double from = NAN;  // of the x axis; NaN: as the data
};

int rows_height(const DrawnGroups& drawn, int panel_rows) {
  const auto lines = static_cast<int>(drawn.groups.size());
  return std::min(330 + panel_rows * (100 + 34 * lines), 2600);
}

void begin_row_panel(FigureScript& script, const DrawnGroups& drawn, int row, int column,
                     const RowPanel& panel) {
  std::vector<std::pair<double, std::string>> ticks;
  for (std::size_t i = 0; i < drawn.names.size(); ++i)
    ticks.emplace_back(static_cast<double>(i), column == 0 ? drawn.names[i] : "");
  script.panel(row, column, panel.title, panel.x_label, "");
  script.add(
      fmt::format("set yrange [{:.2f}:-0.6]\nset ytics {} scale 0 textcolor rgb '#1f2937' font 'DejaVu "
                  "Sans,13'\nset xtics "
                  "autofreq\nset xrange [{}:*]",
                  static_cast<double>(drawn.names.size()) - 0.4, tick_list(ticks),
                  std::isnan(panel.from) ? "*" : fmt::format("{:g}", panel.from)));
}

// {x, y, low, high}: a point with its interval, in the strategy's colour.
void interval_points(FigureScript& script, const DrawnGroups& drawn,
                     const std::vector<SampleEstimate>& estimates, std::vector<std::string>& parts) {
  for (std::size_t i = 0; i < estimates.size(); ++i) {
    const Estimate& found = estimates[i].value;
    if (std::isnan(found.value)) continue;
    const auto y = static_cast<double>(i);
    const std::string block = script.data({{found.value, y, found.low, found.high}});
    if (std::isfinite(found.low))
      parts.push_back(
          fmt::format("{} using 1:2:3:4 with xerrorbars pt 0 lw 2.4 lc rgb '{}'", block, drawn.colors[i]));
    parts.push_back(fmt::format("{} using 1:2 with points pt 7 ps 1.5 lc rgb '{}'", block, drawn.colors[i]));
  }
}

struct QualityMeasure {
  const char* title;
  const char* label;
  double (*of)(const TrialRow&);
  QualityScale (*scale)(const std::vector<double>&) = nullptr;  // null: linear
  double from = NAN;
};

constexpr QualityMeasure kQualities[] = {
    {"Perplexity against Baseline", "change", [](const TrialRow& r) { return std::expm1(log_perplexity(r)); },
     change_scale},
    {"Mean KL", "nats a token, log scale", [](const TrialRow& r) { return r.quality.kl_mean; }, log_scale},
    {"Top-1 agreement", "% of tokens", [](const TrialRow& r) { return 100 * r.quality.top1_agreement; }},
    {"ROUGE-L against Baseline's text", "F1", [](const TrialRow& r) { return r.quality.rouge_l; }, nullptr,
     0},
};

// Leaves ticks whose texts do not touch in a panel, those nearest to 0 first.
void keep_apart(QualityScale& scale) {
  constexpr double kLeastShare = 0.13;
  auto ticks = std::exchange(scale.ticks, {});
  std::stable_sort(ticks.begin(), ticks.end(),
                   [](const auto& a, const auto& b) { return std::abs(a.first) < std::abs(b.first); });
  for (const auto& tick : ticks)
    if (std::none_of(scale.ticks.begin(), scale.ticks.end(), [&](const auto& kept) {
          return std::abs(kept.first - tick.first) < kLeastShare * (scale.high - scale.low);
        }))
      scale.ticks.push_back(tick);
}

// The estimates where they stand on the scale.
QualityScale put_on_scale(const QualityMeasure& measure, std::vector<SampleEstimate>& estimates) {
  std::vector<double> values;
  for (const SampleEstimate& one : estimates)
    for (const double value : {one.value.value, one.value.low, one.value.high})
      if (!std::isnan(value)) values.push_back(value);
  QualityScale scale = measure.scale(values);
  keep_apart(scale);
  for (SampleEstimate& one : estimates)
    for (double* value : {&one.value.value, &one.value.low, &one.value.high})
      if (!std::isnan(*value)) *value = scale.at(*value);
  return scale;
}

struct TimeMeasure {
  const char* title;
  const char* label;
  double (*of)(const TrialRow&);
};

constexpr TimeMeasure kTimes[] = {
    {"Prefill", "seconds", [](const TrialRow& r) { return r.timing.prefill_s; }},
    {"First token", "seconds", [](const TrialRow& r) { return r.timing.first_token_s; }},
    {"A generated token", "milliseconds", [](const TrialRow& r) { return 1000 * r.token_time(); }},
    {"Generation", "seconds", [](const TrialRow& r) { return r.timing.generation_s; }},
};

void box_parts(FigureScript& script, const DrawnGroups& drawn, double (*of)(const TrialRow&),
               std::vector<std::string>& parts) {
  for (std::size_t i = 0; i < drawn.groups.size(); ++i) {
    const TrialSpread spread = spread_of(*drawn.groups[i], of);
    if (spread.trials == 0) continue;
    const auto y = static_cast<double>(i);
    const std::string& color = drawn.colors[i];
    const std::string whisker = script.data({{spread.low, y}, {spread.high, y}});
    const std::string box = script.data({{spread.median, y, spread.q1, spread.q3, y - 0.3, y + 0.3}});
    const std::string middle = script.data({{spread.median, y - 0.3}, {spread.median, y + 0.3}});
    parts.push_back(fmt::format("{} using 1:2 with lines lw 2 lc rgb '{}'", whisker, color));
    parts.push_back(
        fmt::format("{} using 1:2:3:4:5:6 with boxxyerror fs solid 0.35 border lc rgb '{}' fc rgb '{}'", box,
                    color, color));
    parts.push_back(fmt::format("{} using 1:2 with lines lw 3.4 lc rgb '{}'", middle, color));
  }
}

// "h2o.dropped_tokens" and "snapkv.dropped_tokens" count the same thing.
std::string counted(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  return dot == std::string::npos ? name : name.substr(dot + 1);
}

// Counters by what they count: the sum of a trial's counters of that name, means over the group's trials.
std::map<std::string, std::vector<double>> mean_counters(const DrawnGroups& drawn) {
  std::map<std::string, std::vector<double>> means;
  for (std::size_t i = 0; i < drawn.groups.size(); ++i)
    for (const TrialRow* row : drawn.groups[i]->trials)
      for (const auto& [name, value] : row->counters) {
        auto& values = means.try_emplace(counted(name), drawn.groups.size(), 0.0).first->second;
        values[i] += value / static_cast<double>(drawn.groups[i]->trials.size());
      }
  return means;
}

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

Figure times_figure(const DrawnGroups& drawn) {
  Figure figure{"dashboard_times.png", "Times of the trials",
                "Boxes span the middle half of the trials, the line in a box is their median, whiskers reach "
                "the extremes.",
                ""};
  FigureScript script(figure.file, kPlotWidth, rows_height(drawn, 2), 2, 2);
  script.sides(0.28, 0.97);
  script.gaps(0.03, 140.0 / rows_height(drawn, 2));
  script.title(figure.title, dashboard_subtitle(drawn, "medians and spread"));
  bool any = false;
  int place = 0;
  for (const TimeMeasure& measure : kTimes) {
    std::vector<std::string> parts;
    box_parts(script, drawn, measure.of, parts);
    const int at = place++;
    if (parts.empty()) continue;
    any = true;
    begin_row_panel(script, drawn, at / 2, at % 2, {measure.title, measure.label, 0});
    script.plot(parts);
  }
  if (any) figure.script = script.finish();
  return figure;
}

Figure strategy_quality_figure(const DrawnGroups& drawn) {
  Figure figure{
      "dashboard_quality.png", "Quality of the strategies",
      "Means over samples with 95% intervals from a bootstrap over samples; under 8 samples there is "
      "no interval.",
      ""};
  FigureScript script(figure.file, kPlotWidth, rows_height(drawn, 2), 2, 2);
  script.sides(0.28, 0.97);
  script.gaps(0.03, 140.0 / rows_height(drawn, 2));
  script.title(figure.title, dashboard_subtitle(drawn, "95% intervals over 8 samples or more"));
  bool any = false;
  int place = 0;
  for (const QualityMeasure& measure : kQualities) {
    std::vector<SampleEstimate> estimates;
    for (const TrialGroup* group : drawn.groups) estimates.push_back(sample_mean(*group, measure.of));
    QualityScale scale;
    if (measure.scale) scale = put_on_scale(measure, estimates);
    std::vector<std::string> parts;
    interval_points(script, drawn, estimates, parts);
    const int at = place++;
    if (parts.empty()) continue;
    any = true;
    begin_row_panel(script, drawn, at / 2, at % 2, {measure.title, measure.label, measure.from});
    if (measure.scale)
      script.add(fmt::format("set xrange [{:.6g}:{:.6g}]\nset xtics {}", scale.low, scale.high,
                             tick_list(scale.ticks)));
    script.plot(parts);
  }
  if (any) figure.script = script.finish();
  return figure;
}

Figure eviction_figure(const DrawnGroups& drawn) {
  Figure figure{"dashboard_eviction.png", "What was evicted",
                "Counters that the strategies kept, means over their trials.", ""};
  const auto counters = mean_counters(drawn);
  if (counters.empty()) return figure;
  constexpr std::size_t kPanels = 6;
  const auto shown = static_cast<int>(std::min(counters.size(), kPanels));
  const int rows = (shown + 1) / 2;
  FigureScript script(figure.file, kPlotWidth, rows_height(drawn, rows), rows, 2);
  script.sides(0.28, 0.97);
  script.gaps(0.03, 140.0 / rows_height(drawn, rows));
  script.title(figure.title, dashboard_subtitle(drawn, counters.size() > kPanels
                                                           ? fmt::format("the first {} of {} counters",
                                                                         kPanels, counters.size())
                                                           : "means a trial"));
  int place = 0;
  for (const auto& [name, values] : counters) {
    if (place == shown) break;
    begin_row_panel(script, drawn, place / 2, place % 2, {one_line(name, 60), "mean a trial"});
    ++place;
    std::vector<std::string> parts;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto y = static_cast<double>(i);
      parts.push_back(fmt::format(
          "{} using 1:2:3:4:5:6 with boxxyerror fs solid 1.0 noborder fc rgb '{}'",
          script.data({{0, y, std::min(0.0, values[i]), std::max(0.0, values[i]), y - 0.34, y + 0.34}}),
          drawn.colors[i]));
    }
    script.plot(parts);
  }
  figure.script = script.finish();
  return figure;
}

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
