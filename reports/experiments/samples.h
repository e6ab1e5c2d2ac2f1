// What an experiment feeds to a model: prompts as token ids, turn by turn.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "reports/experiments/experiment_config.h"
#include "reports/model_run.h"

namespace kva {

struct SampleTurn {
  std::string text;
  std::vector<int32_t> ids;  // that follow what is in the cache already
  bool answered = true;      // tokens are generated after it
};

struct Sample {
  std::string set;
  std::string name;            // unique within its set
  int64_t context_length = 0;  // that was asked for; 0: none was
  std::vector<SampleTurn> turns;
  std::string key;                   // of a passkey: what the answer should be
  std::vector<std::string> remarks;  // what was done to the prompt

  int64_t prompt_tokens() const;
  int64_t answers() const;  // turns that are answered
};

// The samples of an experiment for a model, in the order of the file; passkeys depend on the seed. A first
// prompt that leaves no room for the answers is cut at its end, with a remark. Throws InputError that names
// the place in the file.
std::vector<Sample> load_samples(const Experiment& experiment, const FoundModel& found, uint64_t seed);

}  // namespace kva
