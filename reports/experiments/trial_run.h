// Running one trial: the answers of a strategy to a sample with traces of its cache, then its quality on
// Baseline's answers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "reports/attention_maps.h"
#include "reports/calibration.h"
#include "reports/experiments/reference.h"
#include "reports/experiments/trials.h"
#include "reports/progress.h"

namespace kva {

// What a run may want to know while a trial is under way; called after each step, outside of what is timed.
struct StepReport {
  const Trial& trial;
  int64_t step = 0;
  int64_t tokens = 0;   // seen
  int64_t bytes = 0;    // held
  bool prompt = false;  // a chunk of a prompt
  const CompressorStats& stats;
};
using StepWatcher = std::function<void(const StepReport&)>;

// The trials of one model. Decoder, pool and plan outlive it; used by one thread at a time.
class TrialRunner {
 public:
  TrialRunner(const RunPlan& plan, std::size_t model, Decoder& decoder, ThreadPool& pool);

  // Called after every step where it is given; it costs a look at the compressor's counters.
  void watch(StepWatcher watcher) { watcher_ = std::move(watcher); }

  // Feeds the trial's sample to a cache that is thrown away, so that what a process does once is in nobody's
  // times.
  void warm_up(const Trial& trial);

  // The row of a trial (docs/experiments.md). `baseline` is the row of the same group's Baseline, null for
  // that trial itself and where there is none. What goes wrong with one trial becomes its row, with status
  // "failed". Throws Interrupted.
  nlohmann::ordered_json run(const Trial& trial, const nlohmann::ordered_json* baseline);

  // Where the trial's strategy looks while Baseline's answers to its sample are fed, so that the maps of a
  // group are of the same tokens. `baseline` as in run(); none where it has no answers. Throws InputError,
  // Interrupted.
  std::optional<AttentionMaps> attention(const Trial& trial, const nlohmann::ordered_json* baseline);

 private:
  void fill(const Trial& trial, const nlohmann::ordered_json* baseline, nlohmann::ordered_json& row);
  void add_quality(const Trial& trial, const nlohmann::ordered_json& baseline, nlohmann::ordered_json& row);
  const Reference& reference(const Trial& trial, const nlohmann::ordered_json& baseline);
  Calibration& calibration(const Experiment& experiment);
  CacheSetup setup(const Trial& trial);

  const RunPlan& plan_;
  const RunModel& model_;
  Decoder& decoder_;
  ThreadPool& pool_;
  std::shared_ptr<const TokenClasses> classes_;
  StepWatcher watcher_;
  Progress quiet_{Progress::Mode::kQuiet};  // a run shows its trials, not what is inside one
  std::optional<Calibration> calibration_;
  int calibration_page_tokens_ = 0;
  std::optional<Reference> reference_;
  int64_t reference_group_ = -1;
};

}  // namespace kva
