// The list of trials of a run: model x seed x repeat x sample x strategy, each named by the hash of all that
// defines its result.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "reports/experiments/experiment_config.h"
#include "reports/experiments/samples.h"

namespace kva {

struct Trial {
  std::string id;              // 16 hexadecimal digits
  std::size_t experiment = 0;  // into the file's list
  std::size_t model = 0;       // into the run's models
  std::size_t strategy = 0;    // of the experiment; 0 is Baseline
  std::shared_ptr<const Sample> sample;
  int64_t repeat = 0;
  uint64_t seed = 0;
  int64_t group = 0;  // trials of one group differ in their strategy only, and follow one another
};

// A model that some experiment names; a model under several settings, or on several devices, is several.
struct RunModel {
  ModelOptions options;
  FoundModel found;
  ModelIdentity identity;
  RunDevice device;
};

// i of n, from 1.
struct Shard {
  int64_t index = 1;
  int64_t count = 1;
  bool is_part() const { return count > 1; }
};

// "2/4". Throws InputError.
Shard parse_shard(const std::string& text);

struct RunPlan {
  ExperimentFile file;
  std::vector<RunModel> models;
  std::vector<Trial> trials;       // those of a model side by side, a group's Baseline before its others
  std::vector<std::string> notes;  // for people
};

// Opens the models (not their weights' values but for their hash), loads the prompts and checks every
// strategy against every model. A shard gets whole groups. Throws InputError that names the place in the
// file, Interrupted.
RunPlan plan_run(ExperimentFile file, const Shard& shard);

}  // namespace kva
