#include "reports/experiments/dialogue.h"

#include <algorithm>

#include "runtime/clock.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

class Dialogue {
 public:
  Dialogue(EvaluatedCache& cache, int64_t vocab, const DialogueOptions& options, DialogueTask& task)
      : cache_(cache), options_(options), task_(task), logits_(static_cast<std::size_t>(vocab)) {}

  DialogueTimes run(const Sample& sample) {
    timed(times_.prefill_s, [&] { cache_.begin(options_.copies); });
    for (std::size_t turn = 0; turn < sample.turns.size(); ++turn) {
      prompt(turn, sample.turns[turn]);
      if (sample.turns[turn].answered) answer(turn);
    }
    return times_;
  }

 private:
  template <typename Work>
  double timed(double& sum, Work work) {
    const auto start = Clock::now();
    work();
    const double seconds = seconds_since(start);
    sum += seconds;
    return seconds;
  }

  void prompt(std::size_t turn, const SampleTurn& spoken) {
    std::vector<int32_t> ids = std::move(pending_);
    pending_.clear();
    ids.insert(ids.end(), spoken.ids.begin(), spoken.ids.end());
    if (spoken.answered) timed(times_.prefill_s, [&] { cache_.begin_prompt(ids); });
    std::span<const int32_t> left(ids);
    while (!left.empty()) {
      const auto part = left.first(std::min(left.size(), static_cast<std::size_t>(options_.chunk_tokens)));
      left = left.subspan(part.size());
      timed(times_.prefill_s, [&] {
        step(part, left.empty() && spoken.answered);
        if (left.empty() && spoken.answered) token_ = task_.next(turn, logits_);
      });
      if (left.empty()) {
        if (spoken.answered && times_.first_token_s == 0) times_.first_token_s = times_.prefill_s;
        timed(times_.prefill_s, [&] { cache_.end_prompt(); });
      }
      task_.stepped(true);
    }
  }

  void answer(std::size_t turn) {
    while (task_.goes_on(turn)) {
      times_.token_s.push_back(timed(times_.generation_s, [&] {
        const int32_t fed = token_;
        step({&fed, 1}, true);
        token_ = task_.next(turn, logits_);
      }));
      task_.stepped(false);
    }
    if (task_.is_kept(token_)) pending_ = {token_};
  }

  void step(std::span<const int32_t> tokens, bool wanted) {
    throw_if_interrupted();
    const auto last = static_cast<int64_t>(tokens.size()) - 1;
    const auto vocab = static_cast<int64_t>(logits_.size());
    cache_.step(tokens, {&last, wanted ? std::size_t{1} : 0},
                MatView<float>(wanted ? logits_.data() : nullptr, wanted ? 1 : 0, vocab));
  }

  EvaluatedCache& cache_;
  const DialogueOptions& options_;
  DialogueTask& task_;
  std::vector<float> logits_;
  std::vector<int32_t> pending_;  // chosen, to be fed with the next prompt
  int32_t token_ = 0;
  DialogueTimes times_;
};

}  // namespace

DialogueTimes run_dialogue(EvaluatedCache& cache, int64_t vocab, const Sample& sample,
                           const DialogueOptions& options, DialogueTask& task) {
  return Dialogue(cache, vocab, options, task).run(sample);
}

}  // namespace kva
