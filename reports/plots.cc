#include "reports/plots.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "reports/plot_figures.h"
#include "reports/report_view.h"

namespace kva {
namespace {

namespace fs = std::filesystem;

constexpr double kSecondsEach = 20;
constexpr double kSecondsAtLeast = 60;

// Draws them in one process and keeps those that really came out.
void draw(std::vector<Figure>& figures, const std::string& folder, PlotSet& set) {
  std::erase_if(figures, [](const Figure& figure) { return figure.script.empty(); });
  if (figures.empty()) return;
  std::vector<const Figure*> to_draw;
  to_draw.reserve(figures.size());
  for (const Figure& figure : figures) to_draw.push_back(&figure);
  const std::string error = run_gnuplot(
      to_draw, folder, std::max(kSecondsAtLeast, kSecondsEach * static_cast<double>(figures.size())));
  if (!error.empty()) set.notes.push_back("plots: " + error);
  for (const Figure& figure : figures) {
    std::error_code ignored;
    const fs::path path = fs::path(folder) / figure.file;
    const auto size = fs::file_size(path, ignored);
    // A failing gnuplot leaves an empty file behind.
    if (ignored || size == 0) {
      fs::remove(path, ignored);
      set.notes.push_back(fmt::format("plots: {} was not drawn", figure.file));
    } else {
      set.plots.push_back({figure.file, figure.title, figure.caption});
    }
  }
}

std::string no_gnuplot(const std::string& again) {
  return fmt::format(
      "plots: skipped, gnuplot is not installed (apt-get install gnuplot-nox fonts-dejavu-core, then `{}`)",
      again);
}

}  // namespace

PlotSet draw_figures(std::vector<Figure>& figures, const std::string& folder, const std::string& again) {
  PlotSet set;
  if (gnuplot_available())
    draw(figures, folder, set);
  else
    set.notes.push_back(no_gnuplot(again));
  return set;
}

PlotSet render_plots(const nlohmann::ordered_json& report, const std::string& folder) {
  PlotSet set;
  if (!gnuplot_available()) {
    set.notes.push_back(no_gnuplot("kvanalyze render report.json"));
    return set;
  }
  if (text_is(report, "kind", "compression")) return set;
  std::vector<Figure> figures;
  if (text_is(report, "kind", "ab")) {
    figures.push_back(quality_front_figure(report));
    figures.push_back(kl_position_figure(report));
    figures.push_back(recipe_bytes_figure(report));
    figures.push_back(layer_bytes_figure(report));
    figures.push_back(layer_error_figure(report));
    figures.push_back(passkey_figure(report));
    draw(figures, folder, set);
    return set;
  }
  figures.push_back(distribution_figure(report));
  figures.push_back(layer_figure(report));
  figures.push_back(opportunity_figure(report));
  figures.push_back(growth_figure(report));
  figures.push_back(cross_layer_figure(report));
  figures.push_back(set_comparison_figure(report));
  if (report.contains("ab")) {
    figures.push_back(quality_front_figure(report));
    figures.push_back(recipe_bytes_figure(report));
  }
  draw(figures, folder, set);
  std::vector<Figure> heatmaps = heatmap_figures(report);
  draw(heatmaps, folder, set);
  return set;
}

}  // namespace kva
