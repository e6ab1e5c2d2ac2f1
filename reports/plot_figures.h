// The figures of a report as gnuplot scripts; a figure without data has an empty script.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "reports/gnuplot.h"

namespace kva {

Figure distribution_figure(const nlohmann::ordered_json& report);
Figure layer_figure(const nlohmann::ordered_json& report);
Figure opportunity_figure(const nlohmann::ordered_json& report);
Figure growth_figure(const nlohmann::ordered_json& report);
Figure cross_layer_figure(const nlohmann::ordered_json& report);
Figure set_comparison_figure(const nlohmann::ordered_json& report);
// One for each layer, K and V side by side, all on the same colour scale.
std::vector<Figure> heatmap_figures(const nlohmann::ordered_json& report);

// Of a report of kind "ab".
Figure quality_front_figure(const nlohmann::ordered_json& report);
Figure kl_position_figure(const nlohmann::ordered_json& report);
Figure recipe_bytes_figure(const nlohmann::ordered_json& report);
Figure layer_bytes_figure(const nlohmann::ordered_json& report);
Figure layer_error_figure(const nlohmann::ordered_json& report);
Figure passkey_figure(const nlohmann::ordered_json& report);

}  // namespace kva
