// A sample's turns through a cache: prompts in chunks, answers token by token. The same steps whether the
// tokens of an answer are chosen or given, so that both read the same cache.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/views.h"
#include "reports/evaluated_cache.h"
#include "reports/experiments/samples.h"

namespace kva {

struct DialogueTimes {
  double prefill_s = 0;         // of all turns, with what the recipe does at the end of a prompt
  double first_token_s = 0;     // from the empty cache to the first token
  double generation_s = 0;      // of the steps that follow
  std::vector<double> token_s;  // of each of them
};

class DialogueTask {
 public:
  virtual ~DialogueTask() = default;
  // The next token of a turn's answer, given the logits [vocab] for it.
  virtual int32_t next(std::size_t turn, std::span<const float> logits) = 0;
  // Whether the answer goes on after the token that next() gave last.
  virtual bool goes_on(std::size_t turn) = 0;
  // Whether that token is fed before the next turn's prompt.
  virtual bool is_kept(int32_t token) const = 0;
  // After each step, a chunk of a prompt or a token of an answer, outside the times.
  virtual void stepped(bool of_prompt) = 0;
};

struct DialogueOptions {
  int64_t chunk_tokens = 512;
  int64_t copies = 1;
};

// Leaves the sequence in the cache. Throws InputError, Interrupted.
DialogueTimes run_dialogue(EvaluatedCache& cache, int64_t vocab, const Sample& sample,
                           const DialogueOptions& options, DialogueTask& task);

}  // namespace kva
