#include "reports/plot_parts.h"

#include <fmt/format.h>

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

}  // namespace kva
