// Figures made of cells or rows: page x page and layer x layer heatmaps, comparisons of sets.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "reports/plot_figures.h"
#include "reports/report_view.h"
#include "reports/text_format.h"

namespace kva {
namespace {

using Rows = std::vector<std::vector<double>>;
constexpr int8_t kNoPair = -128;  // a cell that holds no pair of different pages

struct Map {
  int layer = 0;
  std::string label;
  Rows rows;
};

Map decode_map(const Json& row, const std::string& label) {
  std::string bytes;
  base64_decode(row.at("data").get_ref<const std::string&>(), bytes);
  const auto bins = row.at("bins").get<std::size_t>();
  const double scale = number_at(row, "scale");
  Map map{row.at("layer").get<int>(), label, Rows(bins, std::vector<double>(bins, NAN))};
  for (std::size_t i = 0; i < bins * bins && i < bytes.size(); ++i) {
    const int8_t value = static_cast<int8_t>(bytes[i]);
    if (value != kNoPair) map.rows[i / bins][i % bins] = scale * value;
  }
  return map;
}

std::vector<Map> decode_maps(const Json& report) {
  std::vector<Map> maps;
  const auto series = report_series(report);
  for (const Json& row : report.at("heatmaps")) {
    std::string label = text_at(row, "side");
    for (const Series& one : series)
      if (one.matches(row)) label = one.label;
    if (number_at(row, "bins") > 0) maps.push_back(decode_map(row, label));
  }
  return maps;
}

// From the 1st to the 99th percentile of all cells, widened to tenths.
std::pair<double, double> common_range(const std::vector<Map>& maps) {
  std::vector<double> values;
  for (const Map& map : maps)
    for (const auto& row : map.rows)
      for (const double value : row)
        if (!std::isnan(value)) values.push_back(value);
  if (values.empty()) return {-1, 1};
  const auto at = [&](double share) {
    const auto middle =
        values.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
  };
  const double low = std::floor(10 * at(0.01)) / 10;
  return {low, std::max(low + 0.1, std::ceil(10 * at(0.99)) / 10)};
}

void set_boundaries(const Json& report, double bins, FigureScript& script) {
  int label = 1;
  for (const Json& set : report.at("heatmap_sets")) {
    const double first = number_at(set, "first") * bins - 0.5;
    const double last = number_at(set, "last") * bins - 0.5;
    script.add(
        fmt::format("set label {} {} at {:.3f}, graph -0.03 center font 'DejaVu Sans,13' textcolor rgb "
                    "'#374151' noenhanced",
                    label, quote_gnuplot(one_line(text_at(set, "set"), 18)), (first + last) / 2));
    script.add(
        fmt::format("set label {} {} at graph -0.025, first {:.3f} center rotate by 90 font 'DejaVu Sans,13' "
                    "textcolor rgb '#374151' noenhanced",
                    label + 1, quote_gnuplot(one_line(text_at(set, "set"), 18)), (first + last) / 2));
    if (last < bins - 1) {
      script.add(fmt::format(
          "set arrow {} from {:.3f}, graph 0 to {:.3f}, graph 1 nohead front lw 1.6 lc rgb '#ffffff'", label,
          last, last));
      script.add(
          fmt::format("set arrow {} from graph 0, first {:.3f} to graph 1, first {:.3f} nohead front lw 1.6 "
                      "lc rgb '#ffffff'",
                      label + 1, last, last));
    }
    label += 2;
  }
}

Figure heatmap_figure(const Json& report, int layer, const std::vector<const Map*>& maps,
                      std::pair<double, double> range) {
  Figure figure{fmt::format("heatmap_layer_{:02}.png", layer),
                fmt::format("Layer {}: every page against every page", layer),
                "Mean centred cosine of the pages in each cell, a page with itself left out; pages in order "
                "of prompts, lines between "
                "prompt sets, one colour scale for all layers.",
                ""};
  FigureScript script(figure.file, 1600, 900, 1, static_cast<int>(maps.size()));
  script.gaps(0.12, 0.1);
  script.sides(0.06, 0.91);
  script.title(
      figure.title,
      fmt::format(
          "{} · centred cosine, heads joined · pages in order of prompts, a page with itself left out",
          one_line(text_at(report.at("model"), "name"), 60)));
  for (std::size_t i = 0; i < maps.size(); ++i) {
    const auto bins = static_cast<double>(maps[i]->rows.size());
    script.panel(0, static_cast<int>(i), maps[i]->label, "", "");
    script.add(
        fmt::format("unset grid\nunset xtics\nunset ytics\nset border 0\n{}\nset cbrange [{:.2f}:{:.2f}]\n"
                    "set cblabel 'centred cosine' textcolor rgb '#374151'\nset xrange [-0.5:{:.1f}]\nset "
                    "yrange [{:.1f}:-0.5]",
                    kPalette, range.first, range.second, bins - 0.5, bins - 0.5));
    set_boundaries(report, bins, script);
    script.plot({script.data(maps[i]->rows) + " matrix with image"});
  }
  figure.script = script.finish();
  return figure;
}

// A layer with itself is left blank: it is 1 and would hide the rest.
Rows matrix_rows(const Json& values) {
  Rows rows;
  for (const Json& line : values) {
    rows.emplace_back();
    for (const Json& value : line) {
      const bool itself = rows.back().size() + 1 == rows.size();
      rows.back().push_back(value.is_number() && !itself ? value.get<double>() : NAN);
    }
  }
  return rows;
}

// Mean of the same page in layer l and l + 1, beside random pairs and shuffled tokens.
void adjacent_panel(const Json& report, const Series& series, int column, FigureScript& script) {
  Rows rows;
  for (const Json& row : report.at("adjacent_layers")) {
    if (!series.matches(row) || !text_is(row, "scope", "layer") || !text_is(row, "metric", "cosine_centered"))
      continue;
    const Json& controls = row.at("controls");
    rows.push_back({number_at(row, "layer") + 0.5, number_at(row, "mean"),
                    number_at(controls.at("random"), "mean"), number_at(controls.at("shuffled"), "mean")});
  }
  if (rows.empty()) return;
  const std::string block = script.data(rows);
  const int last = layer_count(report) - 1;
  script.panel(1, column, "", "layer l (point between l and l + 1)", column == 0 ? "centred cosine" : "");
  script.add(
      fmt::format("unset colorbox\nset border 3\nset grid lc rgb '#e5e7eb' lw 1 lt 1\nset autoscale y\nset "
                  "yrange [*:*] noreverse\n"
                  "set xrange [-0.4:{}]\nset xtics {}\nset ytics autofreq",
                  last + 0.4, std::max(1, (last + 9) / 10)));
  script.plot({fmt::format("{} using 1:4 with lines {} lc rgb '{}'", block, kDashed, kControlColor),
               fmt::format("{} using 1:3 with lines {} lc rgb '{}'", block, kDotted, kControlColor),
               fmt::format("{} using 1:2 with linespoints lw 2.8 pt 7 ps 0.9 lc rgb '{}'", block,
                           series_color(series.slug))});
}

struct Comparison {
  std::string label;
  double difference, low, high;
  bool found;
};

std::vector<Comparison> comparisons(const Json& report, const std::string& statistic) {
  std::vector<Comparison> all;
  for (const Series& series : report_series(report)) {
    for (const Json& row : report.at("set_differences")) {
      if (!series.matches(row) || !text_is(row, "metric", "cosine_centered") ||
          !text_is(row, "statistic", statistic))
        continue;
      all.push_back({fmt::format("{} − {}, {}", one_line(text_at(row, "a"), 18),
                                 one_line(text_at(row, "b"), 18), series.label),
                     number_at(row, "difference"), number_at(row, "low"), number_at(row, "high"),
                     !text_is(row, "verdict", "no difference found")});
    }
  }
  return all;
}

// Holds all intervals and zero, with a margin.
std::pair<double, double> shown_range(const std::vector<Comparison>& rows) {
  double low = 0;
  double high = 0;
  for (const Comparison& row : rows) {
    low = std::fmin(low, row.low);
    high = std::fmax(high, row.high);
  }
  const double margin = high - low > 1e-9 ? 0.06 * (high - low) : 0.05;
  return {low - margin, high + margin};
}

}  // namespace

std::vector<Figure> heatmap_figures(const Json& report) {
  const std::vector<Map> maps = decode_maps(report);
  const auto range = common_range(maps);
  std::vector<Figure> figures;
  for (int layer = 0; layer < layer_count(report); ++layer) {
    std::vector<const Map*> of_layer;
    for (const Map& map : maps)
      if (map.layer == layer) of_layer.push_back(&map);
    if (!of_layer.empty()) figures.push_back(heatmap_figure(report, layer, of_layer, range));
  }
  return figures;
}

Figure cross_layer_figure(const Json& report) {
  Figure figure{"cross_layer.png", "The same page in different layers",
                "Above: mean centred cosine of a page in one layer with the same page in another (a layer "
                "with itself left out). Below: "
                "neighbouring layers, beside "
                "random pairs (dotted) and shuffled tokens (dashed).",
                ""};
  const auto series = report_series(report);
  FigureScript script(figure.file, 1600, 1040, 2, static_cast<int>(std::max<std::size_t>(1, series.size())));
  script.gaps(0.105, 0.12);
  script.sides(0.075, 0.935);
  script.title(figure.title, fmt::format("{} · mean centred cosine of pages at the same position, heads "
                                         "joined, a layer with itself left out",
                                         one_line(text_at(report.at("model"), "name"), 60)));
  bool any = false;
  for (std::size_t i = 0; i < series.size(); ++i) {
    for (const Json& row : report.at("layer_matrix")) {
      if (!series[i].matches(row) || row.at("values").empty()) continue;
      any = true;
      const int last = static_cast<int>(row.at("values").size()) - 1;
      script.panel(0, static_cast<int>(i), series[i].label, "layer", i == 0 ? "layer" : "");
      script.add(fmt::format(
          "unset grid\nset border 0\n{}\nset colorbox\nset cbrange [*:*]\nset xrange [-0.5:{}]\nset yrange "
          "[{}:-0.5]\n"
          "set xtics {}\nset ytics {}",
          kPalette, last + 0.5, last + 0.5, std::max(1, (last + 9) / 10), std::max(1, (last + 9) / 10)));
      script.plot({script.data(matrix_rows(row.at("values"))) + " matrix with image"});
    }
    adjacent_panel(report, series[i], static_cast<int>(i), script);
    script.legend(series[i].label,
                  fmt::format("with linespoints lw 3 pt 7 lc rgb '{}'", series_color(series[i].slug)));
  }
  script.legend("random pairs", fmt::format("with lines {} lc rgb '{}'", kDotted, kControlColor));
  script.legend("shuffled tokens", fmt::format("with lines {} lc rgb '{}'", kDashed, kControlColor));
  if (any) figure.script = script.finish();
  return figure;
}

Figure set_comparison_figure(const Json& report) {
  constexpr std::size_t kMostRows = 36;
  Figure figure{"set_comparison.png", "How the prompt sets differ",
                "Difference of the sets' means with its 95% interval over prompts; grey where the interval "
                "holds 0 and no difference was found.",
                ""};
  FigureScript script(figure.file, 1600, 900, 1, 2);
  script.gaps(0.23, 0.1);
  script.sides(0.21, 0.985);
  script.title(figure.title,
               fmt::format("{} · centred cosine, averaged over layers · 95% bootstrap interval over prompts",
                           one_line(text_at(report.at("model"), "name"), 60)));
  bool any = false;
  int column = 0;
  for (const char* statistic : {"mean", "redundancy@0.9"}) {
    auto rows = comparisons(report, statistic);
    if (rows.size() > kMostRows) rows.resize(kMostRows);
    if (rows.empty()) continue;
    any = true;
    const auto range = shown_range(rows);
    Rows found, absent;
    std::string tics = "set ytics (";
    for (std::size_t i = 0; i < rows.size(); ++i) {
      (rows[i].found ? found : absent)
          .push_back({rows[i].difference, static_cast<double>(i), rows[i].low, rows[i].high});
      tics += fmt::format("{}{} {}", i == 0 ? "" : ", ", quote_gnuplot(rows[i].label), i);
    }
    const std::string name = statistic == std::string("mean") ? "mean similarity" : "redundancy at 0.9";
    script.panel(0, column++, name, "difference, first − second", "");
    script.add(
        fmt::format("{}) font 'DejaVu Sans,12' noenhanced\nset yrange [{}:-0.7]\nset xrange "
                    "[{:.4g}:{:.4g}]\nset xtics font 'DejaVu Sans,12'\n"
                    "set arrow 1 from 0, graph 0 to 0, graph 1 nohead lw 1.5 lc rgb '#9ca3af'",
                    tics, static_cast<double>(rows.size()) - 0.3, range.first, range.second));
    std::vector<std::string> parts;
    if (!absent.empty())
      parts.push_back(script.data(absent) +
                      " using 1:2:3:4 with xerrorbars lw 2.2 pt 6 ps 1.4 lc rgb '#9ca3af'");
    if (!found.empty())
      parts.push_back(script.data(found) +
                      " using 1:2:3:4 with xerrorbars lw 2.8 pt 7 ps 1.4 lc rgb '#2f5fd0'");
    script.plot(parts);
  }
  script.legend("a difference", "with points pt 7 ps 1.6 lc rgb '#2f5fd0'");
  script.legend("no difference found (the interval holds 0)", "with points pt 6 ps 1.6 lc rgb '#9ca3af'");
  if (any) figure.script = script.finish();
  return figure;
}

}  // namespace kva
