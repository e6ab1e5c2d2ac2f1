// Figures of an A/B report: KL by position, bytes of recipes and of layers.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "reports/ab_scales.h"
#include "reports/ab_view.h"
#include "reports/plot_figures.h"
#include "reports/plot_parts.h"
#include "reports/text_format.h"

namespace kva {
namespace {

using Rows = std::vector<std::vector<double>>;

// Ticks that are names of rows, the first on top.
std::string row_ticks(const std::vector<const Json*>& rows) {
  std::vector<std::pair<double, std::string>> ticks;
  for (std::size_t i = 0; i < rows.size(); ++i)
    ticks.emplace_back(static_cast<double>(i), short_recipe(*rows[i], kNameBytes));
  return fmt::format(
      "set yrange [{:.2f}:-0.6]\nset ytics {} scale 0 textcolor rgb '#1f2937' font 'DejaVu Sans,13'",
      static_cast<double>(rows.size()) - 0.4, tick_list(ticks));
}

// The parts of a row's bar, one beside the other: to each part's boxes its own (x, y, left, right, low,
// high).
void add_bar(const Json& row, double y, double unit, std::vector<Rows>& parts) {
  double from = 0;
  for (std::size_t part = 0; part < kHeldParts.size(); ++part) {
    const double size = number_at(row.at("ledger"), kHeldParts[part].first) / unit;
    if (size > 0) parts[part].push_back({from, y, from, from + size, y - 0.34, y + 0.34});
    from += size;
  }
}

int height_of_rows(std::size_t rows) {
  return static_cast<int>(std::min<std::size_t>(420 + 44 * rows, 2200));
}

}  // namespace

Figure kl_position_figure(const Json& report) {
  Figure figure{"kl_by_position.png", "KL by position in the window",
                "Mean KL of scored tokens by where they stand in the window, so by how much of the past was "
                "compressed.",
                ""};
  const auto rows = drawn_rows(report);
  const double context = number_at(report.at("ab").at("protocol"), "context");
  const double first = std::floor(context / 2), last = std::max(first + 1, context);
  std::vector<double> values;
  for (const Json* row : rows)
    for (const Json& bin : row->at("kl_by_position")) values.push_back(number_at(bin, "kl_mean"));
  if (std::none_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); }))
    return figure;
  const QualityScale scale = log_scale(values);
  FigureScript script(figure.file, kPlotWidth, 940, 1, 1);
  script.sides(0.075, 0.65);
  script.title(figure.title, ab_subtitle(report, "mean KL of each stretch of positions, log scale"));
  script.panel(0, 0, "", "position in the window (tokens)", "mean KL (nats, log scale)");
  script.add(fmt::format("set xrange [{:.6g}:{:.6g}]\nset yrange [{:.6g}:{:.6g}]\nset ytics {}", first, last,
                         scale.low, scale.high, tick_list(scale.ticks)));
  name_list(rows, 1.02, script);
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    Rows line;
    for (const Json& bin : rows[i]->at("kl_by_position"))
      line.push_back({first + (number_at(bin, "first") + number_at(bin, "last")) / 2,
                      scale.at(number_at(bin, "kl_mean"))});
    if (!line.empty())
      parts.push_back(fmt::format("{} using 1:2 with linespoints lw 2.6 pt 7 ps 0.8 lc rgb '{}'",
                                  script.data(line), recipe_color(i)));
  }
  script.plot(parts);
  figure.script = script.finish();
  return figure;
}

Figure recipe_bytes_figure(const Json& report) {
  Figure figure{
      "bytes_by_recipe.png", "Where the bytes of each recipe are",
      "Bytes held at the last scored token of a window, by what holds them; the dashed line is what the "
      "same numbers take in dense f16.",
      ""};
  const auto rows = drawn_rows(report);
  const double dense_bytes = number_at(*rows.front(), "dense_f16_bytes");
  double most = std::max(1.0, dense_bytes);
  for (const Json* row : rows) most = std::max(most, number_at(*row, "bytes_held"));
  const bool mib = most >= 1048576;
  const double unit = mib ? 1048576 : 1024;
  FigureScript script(figure.file, kPlotWidth, height_of_rows(rows.size()), 1, 1);
  script.sides(0.32, 0.97);
  script.title(figure.title, ab_subtitle(report, "means over the windows"));
  script.panel(0, 0, "", mib ? "MiB held" : "KiB held", "");
  script.add(row_ticks(rows));
  // Room for the sums on the right.
  script.add(fmt::format("set xrange [0:{:.6g}]", 1.25 * most / unit));
  script.add(fmt::format("set arrow from {0:.6g}, graph 0 to {0:.6g}, graph 1 nohead front {1} lc rgb '{2}'",
                         dense_bytes / unit, kDashed, kControlColor));
  std::vector<Rows> parts(kHeldParts.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    add_bar(*rows[i], static_cast<double>(i), unit, parts);
    script.add(
        fmt::format("set label {} at graph 0.99, first {} right front font 'DejaVu Sans,13' textcolor rgb "
                    "'#1f2937' noenhanced",
                    quote_gnuplot(fmt::format("{}   {}×", format_bytes(number_at(*rows[i], "bytes_held")),
                                              format_number(number_at(*rows[i], "compression"), 2))),
                    i));
  }
  std::vector<std::string> boxes;
  for (std::size_t part = 0; part < kHeldParts.size(); ++part) {
    if (parts[part].empty()) continue;
    const std::string style = fmt::format("fs solid 1.0 noborder fc rgb '{}'", part_color(part));
    boxes.push_back(fmt::format("{} using 1:2:3:4:5:6 with boxxyerror {}", script.data(parts[part]), style));
    script.legend(kHeldParts[part].second, fmt::format("with boxes {}", style));
  }
  script.legend("the same in dense f16", fmt::format("with lines {} lc rgb '{}'", kDashed, kControlColor));
  script.plot(boxes);
  figure.script = boxes.empty() ? "" : script.finish();
  return figure;
}

Figure layer_bytes_figure(const Json& report) {
  Figure figure{
      "layer_bytes.png", "Bytes of each layer",
      "Payload and scales that each layer holds, against its share of the same numbers in dense f16.", ""};
  const auto rows = drawn_rows(report);
  const auto layers = static_cast<std::size_t>(layer_count(report));
  Rows cells;
  double most = 0;
  for (const Json* row : rows) {
    const double dense = number_at(*row, "dense_f16_bytes") / static_cast<double>(layers);
    cells.emplace_back(layers, NAN);
    for (const Json& layer : row->at("layers")) {
      const auto at = layer.at("layer").get<std::size_t>();
      if (at >= layers || dense <= 0) continue;
      cells.back()[at] = 100 * number_at(layer, "bytes") / dense;
      most = std::fmax(most, cells.back()[at]);
    }
  }
  if (most <= 0) return figure;
  FigureScript script(figure.file, kPlotWidth, height_of_rows(rows.size()), 1, 1);
  script.sides(0.32, 0.9);
  script.title(figure.title, ab_subtitle(report, "payload and scales; 100% is dense f16"));
  script.panel(0, 0, "", "layer", "");
  script.add(row_ticks(rows));
  script.add(fmt::format(
      "unset grid\nset border 0\n{}\nset cbrange [0:{:.6g}]\nset cblabel '% of dense f16' textcolor rgb "
      "'#374151'\nset xrange [-0.5:{}.5]\nset xtics {} scale 0",
      kPalette, std::max(100.0, most), layers - 1, std::max<std::size_t>(1, (layers + 15) / 16)));
  for (std::size_t i = 1; i < rows.size(); ++i)
    script.add(fmt::format(
        "set arrow from graph 0, first {0} to graph 1, first {0} nohead front lw 3 lc rgb '#ffffff'",
        static_cast<double>(i) - 0.5));
  script.plot({script.data(cells) + " matrix with image pixels"});
  figure.script = script.finish();
  return figure;
}

}  // namespace kva
