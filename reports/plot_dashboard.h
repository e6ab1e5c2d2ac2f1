// What the pictures of a dashboard share.
#pragma once

#include <string>
#include <vector>

#include "reports/gnuplot.h"
#include "reports/trial_statistics.h"

namespace kva {

inline constexpr std::size_t kGroupLetters = 38;

// The groups that pictures show, and how. Baseline of any model is grey.
struct DrawnGroups {
  std::vector<const TrialGroup*> groups;  // with trials; at most kDrawnRows
  std::vector<std::string> names;         // at most kGroupLetters long
  std::vector<std::string> colors;        // of the strategy
  std::vector<std::string> dashes;        // of the model: gnuplot's "dt ..."
  std::size_t trials = 0;
  std::size_t failed = 0;
  std::size_t left_out = 0;  // groups beyond the limit
  explicit DrawnGroups(const std::vector<TrialGroup>& all);
};

// "means over 24 trials · 2 failed trials left out", with `rest` before it.
std::string dashboard_subtitle(const DrawnGroups& drawn, const std::string& rest);

Figure cache_size_figure(const DrawnGroups& drawn);
Figure trial_layers_figure(const DrawnGroups& drawn);
Figure token_times_figure(const DrawnGroups& drawn);
Figure memory_figure(const DrawnGroups& drawn);
Figure times_figure(const DrawnGroups& drawn);
Figure strategy_quality_figure(const DrawnGroups& drawn);
Figure eviction_figure(const DrawnGroups& drawn);
Figure tradeoffs_figure(const DrawnGroups& drawn, const std::vector<TrialGroup>& groups);

}  // namespace kva
