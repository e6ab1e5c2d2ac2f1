#include "reports/passkey_run.h"

#include <algorithm>
#include <span>

#include "reports/evaluation.h"
#include "runtime/clock.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

class PasskeyRunner {
 public:
  PasskeyRunner(int64_t chunk_tokens, const Tokenizer& tokenizer, const CacheSetup& setup, Progress& progress)
      : chunk_tokens_(chunk_tokens),
        tokenizer_(tokenizer),
        setup_(setup),
        progress_(progress),
        logits_(static_cast<std::size_t>(setup.decoder.config().vocab)) {}

  PasskeyRow run(const Recipe& recipe, const std::vector<PasskeyCell>& cells) {
    const auto start = Clock::now();
    EvaluatedCache cache(recipe, setup_);
    PasskeyRow row{.recipe = recipe.text(), .cells = {}};
    for (const PasskeyCell& cell : cells) {
      PasskeyCount& count = row.cells.emplace_back();
      for (const PasskeyTrial& trial : cell.trials) {
        const PasskeyScore score = answer(trial, cache);
        ++count.trials;
        count.exact += score.exact ? 1 : 0;
        count.digits += score.digits;
      }
    }
    row.seconds = seconds_since(start);
    return row;
  }

 private:
  PasskeyScore answer(const PasskeyTrial& trial, EvaluatedCache& cache) {
    cache.begin();
    cache.begin_prompt(trial.prompt);
    feed(trial.prompt, cache, false);
    cache.end_prompt();
    feed(trial.question, cache, true);
    std::vector<int32_t> ids;
    PasskeyScore score;
    for (;;) {
      ids.push_back(static_cast<int32_t>(std::max_element(logits_.begin(), logits_.end()) - logits_.begin()));
      score = score_passkey(tokenizer_.decode(ids, true), trial.key);
      if (score.final || ids.size() == kPasskeyAnswerTokens) break;
      step(std::span(ids).last(1), cache, true);
    }
    cache.end();
    return score;
  }

  // With the logits after the last of the tokens, where they are asked for.
  void feed(std::span<const int32_t> tokens, EvaluatedCache& cache, bool logits) {
    while (!tokens.empty()) {
      const auto part = tokens.first(std::min(tokens.size(), static_cast<std::size_t>(chunk_tokens_)));
      tokens = tokens.subspan(part.size());
      step(part, cache, logits && tokens.empty());
      progress_.update(done_ += static_cast<int64_t>(part.size()));
    }
  }

  void step(std::span<const int32_t> tokens, EvaluatedCache& cache, bool logits) {
    throw_if_interrupted();
    const auto last = static_cast<int64_t>(tokens.size()) - 1;
    const auto vocab = static_cast<int64_t>(logits_.size());
    cache.step(tokens, {&last, logits ? std::size_t{1} : 0},
               MatView<float>(logits ? logits_.data() : nullptr, logits ? 1 : 0, vocab));
  }

  int64_t chunk_tokens_;
  const Tokenizer& tokenizer_;
  const CacheSetup& setup_;
  Progress& progress_;
  std::vector<float> logits_;
  int64_t done_ = 0;
};

}  // namespace

int64_t passkey_tokens(const std::vector<PasskeyCell>& cells) {
  int64_t sum = 0;
  for (const PasskeyCell& cell : cells) sum += cell.tokens();
  return sum;
}

PasskeyCount PasskeyResult::total(const PasskeyRow& row) const {
  PasskeyCount sum;
  for (std::size_t i = 0; i < row.cells.size(); ++i) {
    if (!informative[i]) continue;
    sum.trials += row.cells[i].trials;
    sum.exact += row.cells[i].exact;
    sum.digits += row.cells[i].digits;
  }
  return sum;
}

PasskeyResult run_passkey(std::vector<PasskeyCell> cells, const std::vector<Recipe>& recipes,
                          const PasskeyOptions& options, int64_t chunk_tokens, const Tokenizer& tokenizer,
                          const CacheSetup& setup, Progress& progress) {
  const auto start = Clock::now();
  PasskeyResult result{.options = options, .chunk_tokens = chunk_tokens};
  for (const PasskeyCell& cell : cells) result.tokens.push_back(cell.tokens());
  progress.stage("passkey", passkey_tokens(cells) * (static_cast<int64_t>(recipes.size()) + 2), "tokens");
  PasskeyRunner runner(chunk_tokens, tokenizer, setup, progress);
  result.base = runner.run(Recipe::parse(kBaseRecipe), cells);
  result.rows.push_back(runner.run(Recipe::parse(kBaselineRecipe), cells));
  for (const Recipe& recipe : recipes) result.rows.push_back(runner.run(recipe, cells));
  progress.finish();
  for (const PasskeyCount& count : result.base.cells)
    result.informative.push_back(static_cast<double>(count.exact) >=
                                 options.informative * static_cast<double>(count.trials));
  for (PasskeyCell& cell : cells) cell.trials.clear();
  result.cells = std::move(cells);
  result.seconds = seconds_since(start);
  return result;
}

}  // namespace kva
