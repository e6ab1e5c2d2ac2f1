// Strategies of a run against Baseline, and what that recommends: comparison.md and the dashboard's findings.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "reports/plots.h"
#include "reports/trial_statistics.h"

namespace kva {

// One strategy against Baseline on the same samples of the same model. Changes are shares: -0.5 is half.
struct StrategyFigures {
  const TrialGroup* group = nullptr;
  SampleEstimate bytes_change;       // held at the end, for each token seen
  SampleEstimate prefill_change;     // seconds
  SampleEstimate token_time_change;  // seconds a generated token
  SampleEstimate kl_mean;            // nats a token
  SampleEstimate log_perplexity;     // ln(perplexity / Baseline's)
  SampleEstimate top1_agreement;
  SampleEstimate rouge_l;
  SampleEstimate judge_score;
};

// Those of one model, in the order of the groups, Baseline among them.
std::vector<StrategyFigures> strategy_figures(const std::vector<TrialGroup>& groups,
                                              const std::string& model);

// An answer to "which strategy?", given only where the 95% interval of the best strategy overlaps with that
// of no other candidate.
struct Recommendation {
  std::string question;  // "Smallest cache"
  std::string strategy;  // "" where it is withheld
  std::string sentence;  // with figures, intervals and the rows they come from, or why it is withheld
};
std::vector<Recommendation> recommendations(const std::vector<StrategyFigures>& figures);

// Lines of results.jsonl, short: "lines 3–8, 12, 20–60 by 10".
std::string cited_lines(const TrialGroup& group);

// comparison.md; `notes` are of the rows, plots those that were drawn into plots/.
std::string comparison_markdown(const TrialRows& trials, const PlotSet& plots);

}  // namespace kva
