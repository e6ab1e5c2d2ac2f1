// The figure of passkey retrieval: a grid of lengths and depths for each recipe.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "reports/ab_view.h"
#include "reports/plot_figures.h"
#include "reports/plot_parts.h"
#include "reports/text_format.h"

namespace kva {
namespace {

using Rows = std::vector<std::vector<double>>;

constexpr int kColumns = 4;
constexpr double kBright = 60;           // percent from which a cell's colour wants dark text
constexpr std::size_t kTitleBytes = 30;  // of a recipe above its grid

// Places of values along an axis, with the values as their names.
std::string value_ticks(const Json& values) {
  std::vector<std::pair<double, std::string>> ticks;
  for (const Json& value : values)
    ticks.emplace_back(static_cast<double>(ticks.size()), fmt::format("{:g}", value.get<double>()));
  return tick_list(ticks);
}

// Grids of so many cells have no room for figures in them.
bool labelled(const Json& passkey) { return passkey.at("depths").size() <= 8; }

void grid(const Json& passkey, const Json& row, FigureScript& script) {
  const std::size_t depths = passkey.at("depths").size();
  Rows cells, bright, dark, crossed;
  for (std::size_t i = 0; i < row.at("cells").size(); ++i) {
    const std::size_t length = i / depths;
    const auto x = static_cast<double>(i % depths), y = static_cast<double>(length);
    const double percent = 100 * number_at(row.at("cells")[i], "accuracy");
    cells.push_back({x, y, x - 0.48, x + 0.48, y - 0.47, y + 0.47, percent});
    (percent >= kBright ? bright : dark).push_back({x, y, percent});
    if (!passkey.at("cells")[i].at("informative").get<bool>())
      crossed.push_back({x - 0.48, y - 0.47, 0.96, 0.94});
  }
  std::vector<std::string> parts = {script.data(cells) +
                                    " using 1:2:3:4:5:6:7 with boxxyerror fs solid 1.0 noborder lc palette"};
  if (!crossed.empty())
    parts.push_back(script.data(crossed) + " using 1:2:3:4 with vectors nohead lw 2 lc rgb '#9ca3af'");
  for (const auto& [rows, color] : {std::pair(&bright, "#111827"), std::pair(&dark, "#ffffff")})
    if (!rows->empty() && labelled(passkey))
      parts.push_back(
          fmt::format("{} using 1:2:(sprintf('%.0f', $3)) with labels font 'DejaVu Sans,12' "
                      "textcolor rgb '{}'",
                      script.data(*rows), color));
  script.plot(parts);
}

}  // namespace

Figure passkey_figure(const Json& report) {
  Figure figure{"passkey.png", "Passkey retrieval",
                "Share of exact answers by length of the prompt and depth of the key, for the dense f32 base "
                "and each recipe; the prompt was compressed before the question came. Crossed out: the base "
                "fails too often there to tell anything of recipes.",
                ""};
  const Json* passkey = passkey_of(report);
  if (!passkey) return figure;
  std::vector<std::pair<const Json*, std::string>> grids = {
      {&passkey->at("base"), "the base, " + short_recipe(passkey->at("base"), kTitleBytes)}};
  for (const Json& row : passkey->at("rows"))
    if (grids.size() <= kDrawnRows) grids.emplace_back(&row, short_recipe(row, kTitleBytes));
  const int columns = std::min<int>(kColumns, static_cast<int>(grids.size()));
  const int rows = (static_cast<int>(grids.size()) + columns - 1) / columns;
  const auto lengths = static_cast<int>(passkey->at("lengths").size());
  const auto depths = static_cast<int>(passkey->at("depths").size());
  const int panel = std::clamp(44 * lengths, 90, 400);
  const int height = 180 + rows * (panel + 100);
  FigureScript script(figure.file, kPlotWidth, height, rows, columns);
  script.sides(0.06, 0.92);
  script.gaps(0.045, 100.0 / height);
  script.title(
      figure.title,
      ab_subtitle(report, fmt::format("% of {} trials exact by tokens of the prompt and depth of the key",
                                      format_count(number_at(*passkey, "trials")))));
  for (std::size_t i = 0; i < grids.size(); ++i) {
    const int at = static_cast<int>(i);
    script.panel(at / columns, at % columns, grids[i].second, "depth of the key", "");
    script.add(fmt::format(
        "unset grid\nset border 0\n{}\nset cbrange [0:100]\n{}\nset xrange [-0.5:{}.5]\nset yrange "
        "[{}.5:-0.5]\nset xtics {} scale 0\nset ytics {} scale 0",
        kPalette, at + 1 == columns || grids.size() == 1 ? "set colorbox" : "unset colorbox", depths - 1,
        lengths - 1, value_ticks(passkey->at("depths")), value_ticks(passkey->at("lengths"))));
    grid(*passkey, *grids[i].first, script);
  }
  figure.script = script.finish();
  return figure;
}

}  // namespace kva
