#include "reports/experiments/reference.h"

#include <algorithm>

#include "kernels/check.h"

namespace kva {
namespace {

// Feeds answers that are known, and shows the logits before each of their first `most` tokens.
class Forced : public DialogueTask {
 public:
  using Seen = std::function<void(int32_t token, std::span<const float> logits)>;

  Forced(const std::vector<std::vector<int32_t>>& answers, const std::vector<int32_t>& ends, int64_t most,
         Seen seen)
      : answers_(answers), ends_(ends), most_(most), seen_(std::move(seen)), said_(answers.size()) {}

  int32_t next(std::size_t turn, std::span<const float> logits) override {
    const int32_t token = answers_[turn][said_[turn]++];
    if (count_ < most_) seen_(token, logits);
    ++count_;
    return token;
  }
  bool goes_on(std::size_t turn) override { return said_[turn] < answers_[turn].size() && count_ < most_; }
  bool is_kept(int32_t token) const override {
    return std::find(ends_.begin(), ends_.end(), token) == ends_.end();
  }
  void stepped(bool) override {}

 private:
  const std::vector<std::vector<int32_t>>& answers_;
  const std::vector<int32_t>& ends_;
  int64_t most_;
  Seen seen_;
  std::vector<std::size_t> said_;
  int64_t count_ = 0;
};

int64_t count_of(const std::vector<std::vector<int32_t>>& answers) {
  std::size_t sum = 0;
  for (const auto& answer : answers) sum += answer.size();
  return static_cast<int64_t>(sum);
}

}  // namespace

Reference::Reference(EvaluatedCache& baseline, int64_t vocab, const Sample& sample,
                     std::vector<std::vector<int32_t>> answers, const std::vector<int32_t>& ends,
                     const DialogueOptions& options)
    : vocab_(vocab), answers_(std::move(answers)), ends_(ends), options_(options) {
  KVA_CHECK(answers_.size() == sample.turns.size(), "an answer, be it empty, for each turn");
  const int64_t most = kMaxBytes / (vocab * static_cast<int64_t>(sizeof(float)));
  rows_ = std::min(count_of(answers_), most);
  logits_.reserve(static_cast<std::size_t>(rows_ * vocab_));
  Forced task(answers_, ends_, rows_, [&](int32_t, std::span<const float> logits) {
    logits_.insert(logits_.end(), logits.begin(), logits.end());
  });
  run_dialogue(baseline, vocab, sample, options, task);
  baseline.end();
}

ScoreSeries Reference::score(EvaluatedCache& cache, const Sample& sample, ThreadPool& pool,
                             const std::function<void()>& before_end) const {
  ScoreSeries series;
  series.begin_window();
  int64_t row = 0;
  Forced task(answers_, ends_, rows_, [&](int32_t token, std::span<const float> logits) {
    const MatView<const float> base(logits_.data() + row++ * vocab_, 1, vocab_);
    TokenScore score;
    BaseDistributions(base, {&token, 1}, pool)
        .compare(MatView<const float>(logits.data(), 1, vocab_), {&score, 1}, pool);
    series.append({&score, 1});
  });
  run_dialogue(cache, vocab_, sample, options_, task);
  if (before_end) before_end();
  cache.end();
  return series;
}

std::vector<int32_t> Reference::tokens() const {
  std::vector<int32_t> all;
  for (const auto& answer : answers_) all.insert(all.end(), answer.begin(), answer.end());
  return all;
}

}  // namespace kva
