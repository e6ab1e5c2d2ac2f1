// How a strategy scores on Baseline's answers to the same sample: teacher-forced, on the same steps.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "analyzer/quality/quality.h"
#include "kernels/parallel.h"
#include "reports/experiments/dialogue.h"

namespace kva {

// Baseline's distributions at each token of its answers. Used by one thread at a time.
class Reference {
 public:
  // Feeds the answers (of the turns that are answered, in order) to `baseline`, which is freed of its
  // sequence afterwards. Logits beyond kMaxBytes are left out: later tokens are not scored. `ends` are tokens
  // that the next turn does not begin with.
  static constexpr int64_t kMaxBytes = int64_t{1} << 30;
  Reference(EvaluatedCache& baseline, int64_t vocab, const Sample& sample,
            std::vector<std::vector<int32_t>> answers, const std::vector<int32_t>& ends,
            const DialogueOptions& options);

  // Scores of a cache on the same tokens, in their order. before_end: called while the cache still holds
  // them.
  ScoreSeries score(EvaluatedCache& cache, const Sample& sample, ThreadPool& pool,
                    const std::function<void()>& before_end = {}) const;

  // All answers, one after the other.
  std::vector<int32_t> tokens() const;
  int64_t scored() const { return rows_; }

 private:
  int64_t vocab_;
  std::vector<std::vector<int32_t>> answers_;  // by turn; empty where it is not answered
  std::vector<int32_t> ends_;
  DialogueOptions options_;
  int64_t rows_ = 0;
  std::vector<float> logits_;  // [rows_, vocab_]
};

}  // namespace kva
