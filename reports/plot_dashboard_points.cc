// Pictures of a dashboard: figures of each strategy, in lines under one another.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "reports/ab_scales.h"
#include "reports/plot_dashboard.h"
#include "reports/plot_parts.h"
#include "reports/text_format.h"

namespace kva {
namespace {

struct RowPanel {
  std::string title;
  std::string x_label;
  double from = NAN;  // of the x axis; NaN: as the data
};

int rows_height(const DrawnGroups& drawn, int panel_rows) {
  const auto lines = static_cast<int>(drawn.groups.size());
  return std::min(330 + panel_rows * (100 + 34 * lines), 2600);
}

// Two columns of panels, each with a line of its own for each strategy, the first on top.
class RowPanels {
 public:
  RowPanels(Figure& figure, const DrawnGroups& drawn, int rows, const std::string& subtitle)
      : figure_(figure), drawn_(drawn), script_(figure.file, kPlotWidth, rows_height(drawn, rows), rows, 2) {
    script_.sides(0.28, 0.97);
    script_.gaps(0.03, 140.0 / rows_height(drawn, rows));
    script_.title(figure.title, dashboard_subtitle(drawn, subtitle));
  }
  FigureScript& script() { return script_; }

  // In the next place, which stays empty without parts. axis: said after that of the panel.
  void add(const RowPanel& panel, const std::vector<std::string>& parts, const std::string& axis = "") {
    const int at = place_++;
    if (parts.empty()) return;
    begin(panel, at / 2, at % 2);
    if (!axis.empty()) script_.add(axis);
    script_.plot(parts);
    any_ = true;
  }
  // Where no panel has anything, the figure stays without a script.
  void finish() {
    if (any_) figure_.script = script_.finish();
  }

 private:
  void begin(const RowPanel& panel, int row, int column) {
    std::vector<std::pair<double, std::string>> ticks;
    for (std::size_t i = 0; i < drawn_.names.size(); ++i)
      ticks.emplace_back(static_cast<double>(i), column == 0 ? drawn_.names[i] : "");
    script_.panel(row, column, panel.title, panel.x_label, "");
    script_.add(
        fmt::format("set yrange [{:.2f}:-0.6]\nset ytics {} scale 0 textcolor rgb '#1f2937' font 'DejaVu "
                    "Sans,13'\nset xtics "
                    "autofreq\nset xrange [{}:*]",
                    static_cast<double>(drawn_.names.size()) - 0.4, tick_list(ticks),
                    std::isnan(panel.from) ? "*" : fmt::format("{:g}", panel.from)));
  }

  Figure& figure_;
  const DrawnGroups& drawn_;
  FigureScript script_;
  int place_ = 0;
  bool any_ = false;
};

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

}  // namespace

Figure times_figure(const DrawnGroups& drawn) {
  Figure figure{"dashboard_times.png", "Times of the trials",
                "Boxes span the middle half of the trials, the line in a box is their median, whiskers reach "
                "the extremes.",
                ""};
  RowPanels panels(figure, drawn, 2, "medians and spread");
  for (const TimeMeasure& measure : kTimes) {
    std::vector<std::string> parts;
    box_parts(panels.script(), drawn, measure.of, parts);
    panels.add({measure.title, measure.label, 0}, parts);
  }
  panels.finish();
  return figure;
}

Figure strategy_quality_figure(const DrawnGroups& drawn) {
  Figure figure{
      "dashboard_quality.png", "Quality of the strategies",
      "Means over samples with 95% intervals from a bootstrap over samples; under 8 samples there is "
      "no interval.",
      ""};
  RowPanels panels(figure, drawn, 2, "95% intervals over 8 samples or more");
  for (const QualityMeasure& measure : kQualities) {
    std::vector<SampleEstimate> estimates;
    for (const TrialGroup* group : drawn.groups) estimates.push_back(sample_mean(*group, measure.of));
    QualityScale scale;
    if (measure.scale) scale = put_on_scale(measure, estimates);
    std::vector<std::string> parts;
    interval_points(panels.script(), drawn, estimates, parts);
    panels.add({measure.title, measure.label, measure.from}, parts,
               measure.scale ? fmt::format("set xrange [{:.6g}:{:.6g}]\nset xtics {}", scale.low, scale.high,
                                           tick_list(scale.ticks))
                             : "");
  }
  panels.finish();
  return figure;
}

Figure eviction_figure(const DrawnGroups& drawn) {
  Figure figure{"dashboard_eviction.png", "What was evicted",
                "Counters that the strategies kept, means over their trials.", ""};
  const auto counters = mean_counters(drawn);
  if (counters.empty()) return figure;
  constexpr std::size_t kPanels = 6;
  const auto shown = static_cast<int>(std::min(counters.size(), kPanels));
  RowPanels panels(figure, drawn, (shown + 1) / 2,
                   counters.size() > kPanels
                       ? fmt::format("the first {} of {} counters", kPanels, counters.size())
                       : "means a trial");
  int place = 0;
  for (const auto& [name, values] : counters) {
    if (place++ == shown) break;
    std::vector<std::string> parts;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto y = static_cast<double>(i);
      parts.push_back(fmt::format("{} using 1:2:3:4:5:6 with boxxyerror fs solid 1.0 noborder fc rgb '{}'",
                                  panels.script().data({{0, y, std::min(0.0, values[i]),
                                                         std::max(0.0, values[i]), y - 0.34, y + 0.34}}),
                                  drawn.colors[i]));
    }
    panels.add({one_line(name, 60), "mean a trial"}, parts);
  }
  panels.finish();
  return figure;
}

}  // namespace kva
