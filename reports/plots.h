// The PNGs of a report, drawn by gnuplot.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "reports/gnuplot.h"

namespace kva {

struct Plot {
  std::string file;  // plain name inside plots/
  std::string title;
  std::string caption;
};

struct PlotSet {
  std::vector<Plot> plots;         // those that were drawn
  std::vector<std::string> notes;  // one line for each thing that was not
};

// Draws every plot that the report has data for into `folder`, which exists and is empty. Never fails for
// want of gnuplot: the notes say so. Throws Interrupted after Ctrl-C.
PlotSet render_plots(const nlohmann::ordered_json& report, const std::string& folder);

// The same of figures that are made already; those with an empty script are left out. `again`: the command
// that a note without gnuplot names.
PlotSet draw_figures(std::vector<Figure>& figures, const std::string& folder, const std::string& again);

}  // namespace kva
