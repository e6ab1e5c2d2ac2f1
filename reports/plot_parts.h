// What the figures of an A/B report share: their size, names and places in panels.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "reports/gnuplot.h"

namespace kva {

inline constexpr int kPlotWidth = 1600;        // pixels
inline constexpr std::size_t kNameBytes = 52;  // of a recipe beside a point or a bar

// Model and protocol, then `rest`; how many rows are shown where not all are.
std::string ab_subtitle(const nlohmann::ordered_json& report, const std::string& rest);

// Ticks at places in axis units: "('a' 0, 'b' 1)".
std::string tick_list(const std::vector<std::pair<double, std::string>>& ticks);

// A place in a panel, as shares of it, upwards.
struct PanelPlace {
  double x;
  double y;
};
// gnuplot commands; `style` as "lw 2 lc rgb '#000000'", `align` is left, center or right.
std::string line_between(const PanelPlace& a, const PanelPlace& b, const std::string& style);
std::string label_at(const PanelPlace& at, const std::string& text, const char* align,
                     const std::string& color);

// Names of rows in their colours, one under the other, right of the panel, with what a line looks like; from
// `left`, a share of the panel.
void name_list(const std::vector<const nlohmann::ordered_json*>& rows, double left, FigureScript& script);

}  // namespace kva
