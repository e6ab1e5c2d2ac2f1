#include "reports/plot_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "reports/ab_view.h"
#include "reports/text_format.h"

namespace kva {
namespace {

// gnuplot reads the texts of ticks as formats.
std::string tick_text(const std::string& text) {
  std::string escaped;
  for (const char c : text) escaped += c == '%' ? std::string("%%") : std::string(1, c);
  return quote_gnuplot(escaped);
}

}  // namespace

std::string ab_subtitle(const Json& report, const std::string& rest) {
  const Json& protocol = report.at("ab").at("protocol");
  std::string text = fmt::format(
      "{} · {} scored tokens in windows of {} · {}", one_line(text_at(report.at("model"), "name"), 60),
      format_count(number_at(protocol, "tokens")), format_count(number_at(protocol, "context")), rest);
  if (ab_rows(report).size() > kDrawnRows)
    text += fmt::format(" · the first {} of {} recipes", kDrawnRows, ab_rows(report).size());
  return text;
}

std::string tick_list(const std::vector<std::pair<double, std::string>>& ticks) {
  std::string list;
  for (const auto& [place, text] : ticks)
    list += fmt::format("{}{} {:.6g}", list.empty() ? "" : ", ", tick_text(text), place);
  return "(" + list + ")";
}

std::string line_between(const PanelPlace& a, const PanelPlace& b, const std::string& style) {
  return fmt::format("set arrow from graph {:.5f}, graph {:.5f} to graph {:.5f}, graph {:.5f} nohead {}", a.x,
                     a.y, b.x, b.y, style);
}

std::string label_at(const PanelPlace& at, const std::string& text, const char* align,
                     const std::string& color) {
  return fmt::format(
      "set label {} at graph {:.5f}, graph {:.5f} {} front font 'DejaVu Sans,13' textcolor rgb '{}' "
      "noenhanced",
      quote_gnuplot(text), at.x, at.y, align, color);
}

void name_list(const std::vector<const Json*>& rows, double left, FigureScript& script) {
  const double step =
      std::min(26.0, script.panel_height() / static_cast<double>(rows.size())) / script.panel_height();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const double y = 1 - (static_cast<double>(i) + 0.5) * step;
    const std::string color = recipe_color(i);
    script.add(line_between({left, y}, {left + 0.025, y}, fmt::format("lw 4 lc rgb '{}'", color)));
    script.add(label_at({left + 0.033, y}, short_recipe(*rows[i], kNameBytes), "left", color));
  }
}

}  // namespace kva
