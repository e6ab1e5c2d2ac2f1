// Pictures of a dashboard: series of each strategy as lines.
#include "reports/plot_dashboard.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "reports/ab_view.h"
#include "reports/dashboard_forms.h"
#include "reports/plot_parts.h"
#include "reports/text_format.h"

namespace kva {
namespace {

using Rows = std::vector<std::vector<double>>;

constexpr std::size_t kPlaces = 160;

const std::vector<double>& seen_tokens(const TrialRow& row) { return row.steps.tokens; }
const std::vector<double>& held(const TrialRow& row) { return row.steps.bytes; }
const std::vector<double>& elapsed(const TrialRow& row) { return row.steps.elapsed_s; }
const std::vector<double>& token_at(const TrialRow& row) { return row.timing.token_at; }
const std::vector<double>& token_s(const TrialRow& row) { return row.timing.token_s; }

struct Lines {
  std::string x_label;
  std::string y_label;
  std::vector<Rows> of_group;
};

Lines mean_lines(const DrawnGroups& drawn, SeriesOf x, SeriesOf y, double unit) {
  Lines lines;
  for (const TrialGroup* group : drawn.groups) {
    const MeanSeries mean = mean_series(*group, x, y, kPlaces);
    lines.of_group.emplace_back();
    for (std::size_t i = 0; i < mean.x.size(); ++i)
      lines.of_group.back().push_back({mean.x[i], mean.y[i] / unit});
  }
  return lines;
}

// One panel with a line for each group and their names on the right; without a script where no group has
// points.
void draw_lines(Figure& figure, const DrawnGroups& drawn, const Lines& lines, const std::string& subtitle) {
  if (std::all_of(lines.of_group.begin(), lines.of_group.end(),
                  [](const Rows& rows) { return rows.empty(); }))
    return;
  FigureScript script(figure.file, kPlotWidth, 860, 1, 1);
  script.sides(0.075, 0.68);
  script.title(figure.title, dashboard_subtitle(drawn, subtitle));
  script.panel(0, 0, "", lines.x_label, lines.y_label);
  script.add("set xrange [*:*]\nset yrange [0:*]");
  const double step = std::min(26.0, script.panel_height() / static_cast<double>(drawn.groups.size())) /
                      script.panel_height();
  std::vector<std::string> parts;
  double y = 1 - step / 2;
  for (std::size_t i = 0; i < drawn.groups.size(); ++i) {
    if (lines.of_group[i].empty()) continue;
    script.add(line_between({1.02, y}, {1.045, y},
                            fmt::format("lw 4 {} lc rgb '{}'", drawn.dashes[i], drawn.colors[i])));
    script.add(label_at({1.053, y}, drawn.names[i], "left", drawn.colors[i]));
    y -= step;
    parts.push_back(fmt::format(
        "{} using 1:2 with {} lw 2.6 {} pt 7 ps 0.7 lc rgb '{}'", script.data(lines.of_group[i]),
        lines.of_group[i].size() < 40 ? "linespoints" : "lines", drawn.dashes[i], drawn.colors[i]));
  }
  script.plot(parts);
  figure.script = script.finish();
}

struct BytesUnit {
  double divisor;
  const char* name;
};

BytesUnit bytes_unit(const DrawnGroups& drawn, const std::vector<double>& (*of)(const TrialRow&)) {
  double most = 0;
  for (const TrialGroup* group : drawn.groups)
    for (const TrialRow* row : group->trials)
      for (const double value : of(*row)) most = std::fmax(most, value);
  if (most >= 1048576) return {1048576, "MiB"};
  return most >= 1024 ? BytesUnit{1024, "KiB"} : BytesUnit{1, "bytes"};
}

const std::vector<double>& layer_bytes(const TrialRow& row) { return row.layer_bytes; }

Figure held_figure(const DrawnGroups& drawn, SeriesOf x, const std::string& x_label, Figure figure) {
  const BytesUnit unit = bytes_unit(drawn, held);
  Lines lines = mean_lines(drawn, x, held, unit.divisor);
  lines.x_label = x_label;
  lines.y_label = fmt::format("cache ({})", unit.name);
  draw_lines(figure, drawn, lines, "means by strategy");
  return figure;
}

}  // namespace

DrawnGroups::DrawnGroups(const std::vector<TrialGroup>& all) {
  constexpr std::array<const char*, 4> kDashes = {"dt 1", "dt (3,4)", "dt (10,6)", "dt (10,4,3,4)"};
  std::vector<std::string> strategies, models;
  const bool several = several_models(all);
  for (const TrialGroup& group : all) {
    trials += group.trials.size();
    failed += static_cast<std::size_t>(group.failed);
    if (group.trials.empty()) continue;
    if (groups.size() == kDrawnRows) {
      ++left_out;
      continue;
    }
    groups.push_back(&group);
    if (models.empty() || models.back() != group.model) models.push_back(group.model);
    dashes.emplace_back(kDashes[(models.size() - 1) % kDashes.size()]);
    names.push_back(group_name(group, several, kGroupLetters));
    // A strategy has one colour on all models; the models' names tell them apart.
    auto found = std::find(strategies.begin(), strategies.end(), group.strategy);
    if (!group.baseline && found == strategies.end())
      found = strategies.insert(strategies.end(), group.strategy);
    colors.push_back(
        recipe_color(group.baseline ? 0 : static_cast<std::size_t>(found - strategies.begin()) + 1));
  }
}

std::string dashboard_subtitle(const DrawnGroups& drawn, const std::string& rest) {
  std::string text = fmt::format("{} · {} trials", rest, drawn.trials);
  if (drawn.failed > 0) text += fmt::format(", {} failed ones left out", drawn.failed);
  if (drawn.left_out > 0)
    text += fmt::format(" · the first {} of {} strategies", drawn.groups.size(),
                        drawn.groups.size() + drawn.left_out);
  return text;
}

Figure cache_size_figure(const DrawnGroups& drawn) {
  return held_figure(
      drawn, seen_tokens, "tokens seen",
      {"dashboard_cache_size.png", "Cache size over steps",
       "Bytes that the cache holds after each step of the decoder, against the tokens it has seen; "
       "means over the trials, as far as half of them reach.",
       ""});
}

Figure memory_figure(const DrawnGroups& drawn) {
  return held_figure(drawn, elapsed, "seconds since the start of the trial",
                     {"dashboard_memory.png", "Memory over time",
                      "Bytes that the cache holds over the seconds of a trial; means over the trials, as far "
                      "as half of them reach.",
                      ""});
}

Figure token_times_figure(const DrawnGroups& drawn) {
  Figure figure{"dashboard_token_times.png", "Time of each token",
                "Milliseconds of the generated tokens by their place in the text, means over the trials.",
                ""};
  Lines lines = mean_lines(drawn, token_at, token_s, 0.001);
  lines.x_label = "generated tokens";
  lines.y_label = "time a token (ms)";
  draw_lines(figure, drawn, lines, "means by strategy");
  return figure;
}

Figure trial_layers_figure(const DrawnGroups& drawn) {
  Figure figure{"dashboard_layers.png", "Cache size by layer",
                "Bytes that each layer holds at the end of a trial, means over the trials.", ""};
  const BytesUnit unit = bytes_unit(drawn, layer_bytes);
  Lines lines{"layer", fmt::format("bytes of the layer ({})", unit.name), {}};
  for (const TrialGroup* group : drawn.groups) {
    std::vector<std::pair<double, int>> sums;
    for (const TrialRow* row : group->trials) {
      sums.resize(std::max(sums.size(), row->layer_bytes.size()));
      for (std::size_t layer = 0; layer < row->layer_bytes.size(); ++layer)
        if (!std::isnan(row->layer_bytes[layer])) {
          sums[layer].first += row->layer_bytes[layer];
          ++sums[layer].second;
        }
    }
    lines.of_group.emplace_back();
    for (std::size_t layer = 0; layer < sums.size(); ++layer)
      lines.of_group.back().push_back(
          {static_cast<double>(layer), sums[layer].first / sums[layer].second / unit.divisor});
  }
  draw_lines(figure, drawn, lines, "at the end of the trials, means by strategy");
  return figure;
}

std::vector<Figure> dashboard_figures(const std::vector<TrialGroup>& groups) {
  const DrawnGroups drawn(groups);
  if (drawn.groups.empty()) return {};
  return {tradeoffs_figure(drawn, groups), cache_size_figure(drawn),
          trial_layers_figure(drawn),      times_figure(drawn),
          token_times_figure(drawn),       memory_figure(drawn),
          strategy_quality_figure(drawn),  eviction_figure(drawn)};
}

}  // namespace kva
