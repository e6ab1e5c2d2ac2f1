// The PNGs of a run.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "reports/experiments/profile.h"
#include "reports/gnuplot.h"

namespace kva {

// timing_comparison.png, vram_comparison.png, combined_analysis.png and performance_bars.png; a figure
// without data has an empty script. Memory is that of the cache: on a CPU there is no VRAM.
std::vector<Figure> experiment_figures(const std::vector<const nlohmann::ordered_json*>& rows);

// profile.png: resident memory of the process and bytes of the cache over the time of the run.
Figure profile_figure(const Profile& profile);

// Draws them into `folder`, which is made where it is missing. Returns a line for each thing that could not
// be drawn. Throws InputError where the folder cannot be written, Interrupted.
std::vector<std::string> draw_figures(std::vector<Figure> figures, const std::string& folder);

}  // namespace kva
