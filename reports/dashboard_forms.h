// The written forms of a dashboard.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "reports/gnuplot.h"
#include "reports/plots.h"
#include "reports/trial_rows.h"
#include "reports/trial_statistics.h"

namespace kva {

// dashboard.csv: a header, then a line for each trial, in the order of the rows; RFC 4180. A text that a
// spreadsheet would take for a formula gets an apostrophe before it.
std::string dashboard_csv(const std::vector<TrialRow>& rows);

// dashboard.html. PNGs (file name -> bytes) are shown where plotly_js is empty.
std::string dashboard_html(const TrialRows& trials, const PlotSet& plots,
                           const std::map<std::string, std::string>& png_bytes, const std::string& plotly_js);

// Every figure of the dashboard, over all trials; those without data have an empty script.
std::vector<Figure> dashboard_figures(const std::vector<TrialGroup>& groups);

// "Strategy", or with several models "Strategy · model", where the strategy's name gives way to the model's.
std::string group_name(const TrialGroup& group, bool several_models, std::size_t most_bytes);
bool several_models(const std::vector<TrialGroup>& groups);

}  // namespace kva
