// The figure of errors by layer.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "reports/ab_scales.h"
#include "reports/ab_view.h"
#include "reports/plot_figures.h"
#include "reports/plot_parts.h"

namespace kva {
namespace {

using Rows = std::vector<std::vector<double>>;

void error_panel(const std::vector<const Json*>& rows, const char* key, const QualityScale& scale,
                 FigureScript& script) {
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    Rows line;
    const std::vector<double> errors = layer_errors(*rows[i], key);
    for (std::size_t layer = 0; layer < errors.size(); ++layer)
      if (std::isfinite(errors[layer])) line.push_back({static_cast<double>(layer), scale.at(errors[layer])});
    if (!line.empty())
      parts.push_back(fmt::format("{} using 1:2 with linespoints lw 2.4 pt 7 ps 0.8 lc rgb '{}'",
                                  script.data(line), recipe_color(i)));
  }
  if (!parts.empty()) script.plot(parts);
}

}  // namespace

Figure layer_error_figure(const Json& report) {
  Figure figure{
      "layer_error.png", "Error of each layer",
      "Relative L2 error of the keys and values that are still held at the last scored token, against "
      "the dense f32 base; what earlier layers' errors did to a layer is in it.",
      ""};
  const auto rows = drawn_rows(report);
  std::vector<double> values;
  for (const Json* row : rows)
    for (const char* key : {"k", "v"}) {
      const std::vector<double> errors = layer_errors(*row, key);
      values.insert(values.end(), errors.begin(), errors.end());
    }
  if (std::none_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); }))
    return figure;
  const QualityScale scale = log_scale(values);
  FigureScript script(figure.file, kPlotWidth, 1400, 2, 1);
  script.sides(0.075, 0.65);
  script.gaps(0.055, 0.075);
  script.title(figure.title, ab_subtitle(report, "‖candidate − base‖ ÷ ‖base‖, log scale"));
  const int layers = layer_count(report);
  for (int side = 0; side < 2; ++side) {
    script.panel(side, 0, side == 0 ? "keys" : "values", side == 0 ? "" : "layer", "relative L2 error");
    script.add(fmt::format("set xrange [-0.5:{}.5]\nset xtics {}\nset yrange [{:.6g}:{:.6g}]\nset ytics {}",
                           layers - 1, std::max(1, (layers + 15) / 16), scale.low, scale.high,
                           tick_list(scale.ticks)));
    if (side == 0) name_list(rows, 1.02, script);
    error_panel(rows, side == 0 ? "k" : "v", scale, script);
  }
  figure.script = script.finish();
  return figure;
}

}  // namespace kva
