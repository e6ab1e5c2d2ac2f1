// The analysis as the sections of report.json (docs/formats.md), and the partner table as CSV.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "analyzer/redundancy/redundancy.h"

namespace kva {

// The members "definitions", "thresholds", "histogram_bins", "similarity", "adjacent_layers", "layer_matrix",
// "heatmaps", "heatmap_sets", "duplicates", "clusters", "opportunity", "growth", "set_differences" and
// "norms", in that order. Numbers are rounded to 6 significant digits: far finer than the histograms behind
// the percentiles, and half the size.
nlohmann::ordered_json to_json(const RedundancyResult& result);

// Columns layer,side,basis,page,rank,partner,similarity; rank 1 is the best partner by cosine_centered, pages
// count from 0 in the order of the capture.
std::string partners_csv(const RedundancyResult& result);

}  // namespace kva
