// Figures of an A/B report: quality against bytes, KL by position, bytes of recipes and of layers.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "reports/ab_scales.h"
#include "reports/ab_view.h"
#include "reports/label_layout.h"
#include "reports/plot_figures.h"
#include "reports/screen.h"
#include "reports/text_format.h"

namespace kva {
namespace {

constexpr int kWidth = 1600;
constexpr std::size_t kLabelBytes = 46;
constexpr double kLetterWidth = 8.4;  // of the labels' font, in pixels
constexpr double kLineHeight = 19;
constexpr const char* kFrontColor = "#1f2937";

using Rows = std::vector<std::vector<double>>;

std::string subtitle_of(const Json& report, const std::string& rest) {
  const Json& protocol = report.at("ab").at("protocol");
  std::string text = fmt::format(
      "{} · {} scored tokens in windows of {} · {}", one_line(text_at(report.at("model"), "name"), 60),
      format_count(number_at(protocol, "tokens")), format_count(number_at(protocol, "context")), rest);
  if (ab_rows(report).size() > kDrawnRows)
    text += fmt::format(" · the first {} of {} recipes", kDrawnRows, ab_rows(report).size());
  return text;
}

// gnuplot reads the texts of ticks as formats.
std::string tick_text(const std::string& text) {
  std::string escaped;
  for (const char c : text) escaped += c == '%' ? std::string("%%") : std::string(1, c);
  return quote_gnuplot(escaped);
}

std::string tick_list(const std::vector<std::pair<double, std::string>>& ticks) {
  std::string list;
  for (const auto& [place, text] : ticks)
    list += fmt::format("{}{} {:.6g}", list.empty() ? "" : ", ", tick_text(text), place);
  return "(" + list + ")";
}

// A place in a panel, as shares of it, upwards.
struct Place {
  double x;
  double y;
};

std::string line_between(const Place& a, const Place& b, const std::string& style) {
  return fmt::format("set arrow from graph {:.5f}, graph {:.5f} to graph {:.5f}, graph {:.5f} nohead {}", a.x,
                     a.y, b.x, b.y, style);
}

std::string label_at(const Place& at, const std::string& text, const char* align, const std::string& color) {
  return fmt::format(
      "set label {} at graph {:.5f}, graph {:.5f} {} front font 'DejaVu Sans,13' textcolor rgb '{}' "
      "noenhanced",
      quote_gnuplot(text), at.x, at.y, align, color);
}

struct Mark {
  double bits;
  Interval quality;
  std::size_t row;
  bool on_front;
  std::string name;
};

std::vector<Mark> marks_of(const Json& report, const char* key) {
  std::vector<Mark> marks;
  const auto rows = drawn_rows(report);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Interval quality = row_interval(*rows[i], key);
    if (std::isfinite(quality.value))
      marks.push_back({number_at(*rows[i], "bits_per_value"), quality, i, rows[i]->at("on_front").get<bool>(),
                       short_recipe(*rows[i], kLabelBytes)});
  }
  return marks;
}

std::vector<double> values_of(const std::vector<Mark>& marks) {
  std::vector<double> values;
  for (const Mark& mark : marks)
    values.insert(values.end(), {mark.quality.value, mark.quality.low, mark.quality.high});
  return values;
}

// Names beside their points, joined by a line where they had to move away.
void name_marks(const std::vector<Mark>& marks, const QualityScale& scale, double most_bits,
                FigureScript& script) {
  const double width = script.panel_width(), height = script.panel_height();
  const auto pixel_y = [&](double value) {
    return height * (1 - (scale.at(value) - scale.low) / (scale.high - scale.low));
  };
  std::vector<LabelledPoint> points;
  std::vector<LabelBox> bars;
  for (const Mark& mark : marks) {
    const double x = width * mark.bits / most_bits;
    points.push_back({x, pixel_y(mark.quality.value),
                      kLetterWidth * static_cast<double>(columns_of(mark.name)), kLineHeight});
    if (std::isfinite(mark.quality.low))
      bars.push_back({x - 4, pixel_y(mark.quality.high), x + 4, pixel_y(mark.quality.low)});
  }
  const auto labels = place_labels(points, {2, 2, width - 2, height - 2}, bars);
  const auto place = [&](double x, double y) { return Place{x / width, 1 - y / height}; };
  for (std::size_t i = 0; i < marks.size(); ++i) {
    const std::string color = recipe_color(marks[i].row);
    script.add(label_at(place(labels[i].box.left, (labels[i].box.top + labels[i].box.bottom) / 2),
                        marks[i].name, "left", color));
    if (labels[i].joined)
      script.add(line_between(place(points[i].x, points[i].y), place(labels[i].line_x, labels[i].line_y),
                              fmt::format("lw 1 lc rgb '{}'", color)));
  }
}

void front_line(const std::vector<Mark>& marks, const QualityScale& scale, FigureScript& script,
                std::vector<std::string>& parts) {
  Rows front;
  for (const Mark& mark : marks)
    if (mark.on_front) front.push_back({mark.bits, scale.at(mark.quality.value)});
  if (front.empty()) return;
  std::sort(front.begin(), front.end());
  const std::string block = script.data(front);
  parts.push_back(fmt::format("{} using 1:2 with lines lw 2 lc rgb '{}'", block, kFrontColor));
  parts.push_back(fmt::format("{} using 1:2 with points pt 6 ps 2.4 lw 2 lc rgb '{}'", block, kFrontColor));
}

void quality_panel(const std::vector<Mark>& marks, const QualityScale& scale, int row,
                   const std::string& x_label, const std::string& y_label, double most_bits, double floor,
                   FigureScript& script) {
  script.panel(row, 0, "", x_label, y_label);
  script.add(
      fmt::format("set xrange [0:{:.6g}]\nset xtics autofreq\nset yrange [{:.6g}:{:.6g}]\nset ytics {}",
                  most_bits, scale.low, scale.high, tick_list(scale.ticks)));
  std::vector<std::string> parts;
  const double line = scale.at(floor);
  if (line >= scale.low && line <= scale.high)
    parts.push_back(fmt::format("{} using 1:2 with lines {} lc rgb '{}'",
                                script.data({{0, line}, {most_bits, line}}), kDashed, kControlColor));
  if (scale.kind == QualityScale::Kind::kLog) front_line(marks, scale, script, parts);
  for (const Mark& mark : marks) {
    const std::string color = recipe_color(mark.row);
    const std::string block = script.data(
        {{mark.bits, scale.at(mark.quality.value), scale.at(mark.quality.low), scale.at(mark.quality.high)}});
    if (std::isfinite(mark.quality.low))
      parts.push_back(fmt::format("{} using 1:2:3:4 with yerrorbars pt 0 lw 2 lc rgb '{}'", block, color));
    parts.push_back(fmt::format("{} using 1:2 with points pt 7 ps 1.5 lc rgb '{}'", block, color));
  }
  name_marks(marks, scale, most_bits, script);
  script.plot(parts);
}

double most_bits_of(const Json& report) {
  double most = 1;
  for (const Json* row : drawn_rows(report)) most = std::max(most, number_at(*row, "bits_per_value"));
  return 1.08 * most;
}

// Names of rows in their colours, one under the other, right of the panels; with what a line looks like.
void name_list(const std::vector<const Json*>& rows, double left, FigureScript& script) {
  const double step =
      std::min(26.0, script.panel_height() / static_cast<double>(rows.size())) / script.panel_height();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const double y = 1 - (static_cast<double>(i) + 0.5) * step;
    const std::string color = recipe_color(i);
    script.add(line_between({left, y}, {left + 0.025, y}, fmt::format("lw 4 lc rgb '{}'", color)));
    script.add(label_at({left + 0.033, y}, short_recipe(*rows[i], kLabelBytes), "left", color));
  }
}

// Ticks that are names of rows, the first on top.
std::string row_ticks(const std::vector<const Json*>& rows) {
  std::vector<std::pair<double, std::string>> ticks;
  for (std::size_t i = 0; i < rows.size(); ++i)
    ticks.emplace_back(static_cast<double>(i), short_recipe(*rows[i], kLabelBytes));
  return fmt::format(
      "set yrange [{:.2f}:-0.6]\nset ytics {} scale 0 textcolor rgb '#1f2937' font 'DejaVu Sans,13'",
      static_cast<double>(rows.size()) - 0.4, tick_list(ticks));
}

int height_of_rows(std::size_t rows) {
  return static_cast<int>(std::min<std::size_t>(420 + 44 * rows, 2200));
}

}  // namespace

Figure quality_front_figure(const Json& report) {
  Figure figure{
      "quality_front.png", "Quality against bytes",
      "Every recipe with its 95% interval: mean KL against the base (above, with the front of recipes that "
      "no other beats in both) and change of perplexity (below). Dashed: the noise floor, and no change.",
      ""};
  const auto kl = marks_of(report, "kl_mean"), change = marks_of(report, "delta_perplexity");
  if (kl.empty() || change.empty()) return figure;
  const double floor = noise_floor_kl(report), most_bits = most_bits_of(report);
  std::vector<double> kl_values = values_of(kl);
  if (floor > 0) kl_values.push_back(floor);
  FigureScript script(figure.file, kWidth, 1500, 2, 1);
  script.gaps(0.05, 0.06);
  script.title(figure.title, subtitle_of(report, "95% intervals · further left and lower is better"));
  quality_panel(kl, kl_scale(kl_values), 0, "", "mean KL (nats, log scale)", most_bits, floor, script);
  quality_panel(change, change_scale(values_of(change)), 1, "bits a cached number takes, everything counted",
                "change of perplexity", most_bits, 0, script);
  script.legend("not beaten in bytes and KL at once",
                fmt::format("with linespoints lw 2 pt 6 ps 2 lc rgb '{}'", kFrontColor));
  script.legend("noise floor, no change", fmt::format("with lines {} lc rgb '{}'", kDashed, kControlColor));
  figure.script = script.finish();
  return figure;
}

Figure kl_position_figure(const Json& report) {
  Figure figure{"kl_by_position.png", "KL by position in the window",
                "Mean KL of scored tokens by where they stand in the window, so by how much of the past was "
                "compressed.",
                ""};
  const auto rows = drawn_rows(report);
  const double first = std::floor(number_at(report.at("ab").at("protocol"), "context") / 2);
  std::vector<double> values;
  for (const Json* row : rows)
    for (const Json& bin : row->at("kl_by_position")) values.push_back(number_at(bin, "kl_mean"));
  if (std::none_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); }))
    return figure;
  const QualityScale scale = kl_scale(values);
  FigureScript script(figure.file, kWidth, 940, 1, 1);
  script.sides(0.075, 0.68);
  script.title(figure.title, subtitle_of(report, "mean KL of each stretch of positions, log scale"));
  script.panel(0, 0, "", "position in the window (tokens)", "mean KL (nats, log scale)");
  script.add(fmt::format("set xrange [{:.6g}:*]\nset yrange [{:.6g}:{:.6g}]\nset ytics {}", first, scale.low,
                         scale.high, tick_list(scale.ticks)));
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
  double most = number_at(*rows.front(), "dense_f16_bytes");
  for (const Json* row : rows) most = std::max(most, number_at(*row, "bytes_held"));
  const double unit = most >= 1048576 ? 1048576 : 1024;
  FigureScript script(figure.file, kWidth, height_of_rows(rows.size()), 1, 1);
  script.sides(0.29, 0.97);
  script.title(figure.title, subtitle_of(report, "means over the windows"));
  script.panel(0, 0, "", unit > 1024 ? "MiB held" : "KiB held", "");
  script.add(row_ticks(rows));
  script.add(fmt::format("set xrange [0:{:.6g}]", 1.16 * most / unit));
  const double dense = number_at(*rows.front(), "dense_f16_bytes") / unit;
  script.add(fmt::format("set arrow from {0:.6g}, graph 0 to {0:.6g}, graph 1 nohead front {1} lc rgb '{2}'",
                         dense, kDashed, kControlColor));
  std::vector<Rows> parts(kHeldParts.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto y = static_cast<double>(i);
    double from = 0;
    for (std::size_t part = 0; part < kHeldParts.size(); ++part) {
      const double size = number_at(rows[i]->at("ledger"), kHeldParts[part].first) / unit;
      if (size > 0) parts[part].push_back({from, y, from, from + size, y - 0.34, y + 0.34});
      from += size;
    }
    script.add(fmt::format(
        "set label {} at first {:.6g}, first {:.3f} left offset 0.6,0 front font 'DejaVu Sans,13' "
        "textcolor rgb '#1f2937' noenhanced",
        quote_gnuplot(fmt::format("{}  {}×", format_bytes(number_at(*rows[i], "bytes_held")),
                                  format_number(number_at(*rows[i], "compression"), 2))),
        std::max(from, i == 0 ? dense : from), y));
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
  FigureScript script(figure.file, kWidth, height_of_rows(rows.size()), 1, 1);
  script.sides(0.29, 0.9);
  script.title(figure.title, subtitle_of(report, "payload and scales; 100% is dense f16"));
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
