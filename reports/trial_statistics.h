// What the trials of a run say together: figures of each strategy, and what it changes against Baseline.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "analyzer/estimate.h"
#include "reports/trial_rows.h"

namespace kva {

// The trials of one strategy on one model; they point into the rows.
struct TrialGroup {
  std::string model;
  std::string strategy;
  bool baseline = false;
  std::vector<const TrialRow*> trials;  // that ended well
  int64_t failed = 0;
};

// In the order in which models, then strategies, come first in the rows, Baseline before the others. Of one
// prompt set where it is given.
std::vector<TrialGroup> group_trials(const std::vector<TrialRow>& rows, const std::string& prompt_set = "");

// Figures of a trial; NaN where it does not have them.
double held_bytes(const TrialRow& row);      // at the end
double token_bytes(const TrialRow& row);     // held at the end, for each token seen: answers differ in length
double log_perplexity(const TrialRow& row);  // ln(perplexity / perplexity of Baseline)

// Over the trials that have the figure; NaN for none.
struct TrialSpread {
  int64_t trials = 0;
  double mean = kUnknown;
  double low = kUnknown, q1 = kUnknown, median = kUnknown, q3 = kUnknown, high = kUnknown;
};
TrialSpread spread_of(const TrialGroup& group, double (*of)(const TrialRow&));

// A mean over samples (repeats of one are averaged first, so that each counts once) with its 95% interval
// from a seeded bootstrap over samples (BlockBootstrap), NaN under 8 of them.
struct SampleEstimate {
  Estimate value;
  int64_t samples = 0;
};
SampleEstimate sample_mean(const TrialGroup& group, double (*of)(const TrialRow&));
// Of figure / Baseline's figure - 1 on the same sample: same prompt set, context length, batch size, device.
// Samples that either lacks are left out.
SampleEstimate sample_change(const TrialGroup& group, const TrialGroup& baseline,
                             double (*of)(const TrialRow&));

// Trials that are no Baseline's, those with the largest mean KL first, `most` of them at most.
std::vector<const TrialRow*> worst_trials(const std::vector<TrialRow>& rows, const std::string& model,
                                          std::size_t most);

// The group that the others of its model are measured against; null where there is none.
const TrialGroup* baseline_of(const std::vector<TrialGroup>& groups, const std::string& model);

// Series of trials on one axis: at up to `points` places evenly apart between the first and the last, the
// mean of those trials that reach there, linear between their points.
struct MeanSeries {
  std::vector<double> x, y;
  std::vector<int64_t> trials;  // at each place
};
using SeriesOf = const std::vector<double>& (*)(const TrialRow&);
MeanSeries mean_series(const TrialGroup& group, SeriesOf x, SeriesOf y, std::size_t points);

}  // namespace kva
