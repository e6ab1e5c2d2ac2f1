// `kvanalyze run`: trials of a configuration, one after the other, and what they come to.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "kernels/parallel.h"
#include "reports/experiments/trials.h"
#include "reports/judge.h"
#include "reports/progress.h"
#include "reports/provenance.h"

namespace kva {

struct RunOptions {
  Shard shard;
  bool save = true;  // else nothing is written
  bool plots = true;
  bool profile = false;    // memory and time of every step: profile.csv, plots/profile.png
  bool debug = false;      // every decision of a strategy into run.log
  bool dashboard = false;  // reports/dashboard.h, of the folder
  // Of each model, where its strategies look in its first sample: images/ (attention_maps.h), with several
  // models images/1/, images/2/ and so on. Not of a shard.
  bool save_attention = false;
  // Scores the answers when all trials are there (judge.h); rows that it has judged are left alone. Not of a
  // shard.
  std::optional<JudgeOptions> judge;
};

struct RunOutcome {
  std::string folder;   // empty: nothing was written
  int64_t trials = 0;   // of this run or shard
  int64_t resumed = 0;  // of them, finished before
  int64_t failed = 0;
  std::vector<std::string> notes;  // one line for each thing that could not be made
  std::string judge_error;         // why the judge did not score all answers
  std::string table;               // the strategies side by side, for a terminal
};

// Runs what results.jsonl has no row of, in a folder that nobody else writes to. Whatever ends it, finished
// trials are kept; the summaries and plots are written when all are there. Files of the folder:
// docs/experiments.md. Throws InputError for mistakes in the configuration, before any trial; Interrupted
// after Ctrl-C.
RunOutcome run_experiments(const ExperimentFile& file, const RunOptions& options, const RunStamp& stamp,
                           ThreadPool& pool, Progress& progress);

// Strategies side by side: a line each.
std::string outcome_table(const std::vector<const nlohmann::ordered_json*>& rows);

}  // namespace kva
