#include "reports/evaluation.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>

#include "kernels/check.h"
#include "runtime/backend/host_memory.h"
#include "runtime/clock.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/io/hash.h"

namespace kva {
namespace {

// Logits of one step, [rows, vocab].
class LogitBuffer {
 public:
  LogitBuffer(int64_t rows, int64_t vocab) : vocab_(vocab), values_(static_cast<std::size_t>(rows * vocab)) {}

  MatView<float> rows(int64_t first, int64_t count) {
    return MatView<float>(values_.data() + first * vocab_, count, vocab_);
  }

 private:
  int64_t vocab_;
  std::vector<float> values_;
};

std::string hash_of(MatView<float> logits) {
  return bytes_hash(
      std::as_bytes(std::span(logits.data, static_cast<std::size_t>(logits.rows * logits.cols))));
}

// Not only the sum: the slack of a slab can hide what its pages take.
bool same_bytes(const ByteLedger& a, const ByteLedger& b) {
  return a.payload == b.payload && a.scales == b.scales && a.side == b.side && a.tables == b.tables &&
         a.slack == b.slack;
}

// One recipe on its way through the windows.
class Runner {
 public:
  Runner(const Recipe& recipe, const CacheSetup& setup)
      : recipe_(recipe.text()), cache_(std::make_unique<EvaluatedCache>(recipe, setup)) {}

  void step(std::span<const int32_t> window, const WindowStep& step, MatView<float> logits) {
    std::vector<int64_t> rows(static_cast<std::size_t>(step.logits));
    std::iota(rows.begin(), rows.end(), step.first_logit);
    const auto start = Clock::now();
    const auto tokens = [&](int64_t count) {
      return window.subspan(static_cast<std::size_t>(step.start), static_cast<std::size_t>(count));
    };
    if (step.prompt_tokens > 0) cache_->begin_prompt(tokens(step.prompt_tokens));
    cache_->step(tokens(step.tokens), rows, logits);
    if (step.ends_turn) cache_->end_prompt();
    seconds_ += seconds_since(start);
  }

  EvaluatedCache& cache() { return *cache_; }
  const std::string& recipe() const { return recipe_; }
  double seconds() const { return seconds_; }

 private:
  std::string recipe_;
  std::unique_ptr<EvaluatedCache> cache_;
  double seconds_ = 0;
};

// All recipes over the same steps.
class Lockstep {
 public:
  Lockstep(std::span<const int32_t> text, const std::vector<Recipe>& recipes, const WindowOptions& options,
           const CacheSetup& setup, Progress& progress, bool map_attention)
      : text_(text),
        options_(options),
        pool_(setup.pool),
        progress_(progress),
        map_attention_(map_attention),
        base_(Recipe::parse(kBaseRecipe), setup),
        rechunked_(Recipe::parse(kBaseRecipe), setup),
        base_logits_(options.chunk, setup.decoder.config().vocab),
        logits_(options.chunk, setup.decoder.config().vocab),
        rechunked_logits_(2 * options.chunk, setup.decoder.config().vocab) {
    runners_.emplace_back(Recipe::parse(kBaselineRecipe), setup);
    for (const Recipe& recipe : recipes) runners_.emplace_back(recipe, setup);
    for (const Runner& runner : runners_) {
      result_.candidates.emplace_back();
      result_.candidates.back().recipe = runner.recipe();
      result_.candidates.back().chunk_tokens = options.chunk;
    }
    result_.rechunked.recipe = kBaseRecipe;
    result_.rechunked.chunk_tokens = 2 * options.chunk;
  }

  Evaluation run(const std::vector<Window>& windows) {
    int64_t total = 0;
    for (const Window& window : windows) total += window.tokens;
    progress_.stage("evaluate", total * (static_cast<int64_t>(runners_.size()) + 2), "tokens");
    for (const Window& window : windows) run_window(window);
    progress_.finish();
    for (std::size_t i = 0; i < runners_.size(); ++i) {
      result_.candidates[i].seconds = runners_[i].seconds();
      result_.candidates[i].stats = runners_[i].cache().stats();
    }
    result_.rechunked.seconds = rechunked_.seconds();
    result_.base_seconds = base_.seconds();
    result_.baseline = std::move(result_.candidates.front());
    result_.candidates.erase(result_.candidates.begin());
    return std::move(result_);
  }

 private:
  void run_window(const Window& window) {
    const auto ids =
        text_.subspan(static_cast<std::size_t>(window.first_token), static_cast<std::size_t>(window.tokens));
    base_.cache().begin();
    rechunked_.cache().begin();
    result_.rechunked.scores.begin_window();
    for (std::size_t i = 0; i < runners_.size(); ++i) {
      runners_[i].cache().map_attention(map_attention_);
      runners_[i].cache().begin();
      result_.candidates[i].scores.begin_window();
    }
    WindowOptions twice = options_;
    twice.chunk *= 2;
    const std::vector<WindowStep> steps = window_steps(window, options_);
    auto next = steps.begin();
    for (const WindowStep& wide : window_steps(window, twice)) {
      rechunked_.step(ids, wide, rechunked_logits_.rows(0, wide.logits));
      count(wide.tokens);
      int64_t seen = 0;  // rows of rechunked_logits_
      // Both cut at the ends of turns, so that a wide step is one or two of ours.
      for (; next != steps.end() && next->start < wide.start + wide.tokens; ++next) {
        run_step(ids, *next, rechunked_logits_.rows(seen, next->logits));
        seen += next->logits;
      }
      KVA_CHECK(seen == wide.logits, "steps of both lengths score the same positions");
    }
    for (std::size_t i = 0; i < runners_.size(); ++i) {
      if (map_attention_)
        result_.candidates[i].attention =
            take_attention(runners_[i].cache().cache(), runners_[i].cache().sequence(), runners_[i].recipe());
      end_window(runners_[i], result_.candidates[i]);
      throw_if_interrupted();
      const EvaluatedCache& cache = runners_[i].cache();
      add_layer_errors(base_.cache().cache(), base_.cache().sequence(), cache.cache(), cache.sequence(),
                       pool_, result_.candidates[i].layers);
    }
    end_window(rechunked_, result_.rechunked);
    map_attention_ = false;
  }

  void run_step(std::span<const int32_t> ids, const WindowStep& step, MatView<float> rechunked) {
    const MatView<float> base = base_logits_.rows(0, step.logits);
    base_.step(ids, step, base);
    count(step.tokens);
    const auto targets =
        ids.subspan(static_cast<std::size_t>(step.start + step.first_logit + (step.logits > 0 ? 1 : 0)),
                    static_cast<std::size_t>(step.logits));
    const auto distributions =
        step.logits > 0 ? std::make_optional<BaseDistributions>(base, targets, pool_) : std::nullopt;
    std::vector<TokenScore> scores(targets.size());
    const auto compare = [&](MatView<const float> logits, Candidate& candidate) {
      if (!distributions) return;
      distributions->compare(logits, scores, pool_);
      candidate.scores.append(scores);
    };
    compare(rechunked, result_.rechunked);
    std::string baseline_hash;
    ByteLedger baseline_ledger;
    for (std::size_t i = 0; i < runners_.size(); ++i) {
      const MatView<float> logits = logits_.rows(0, step.logits);
      runners_[i].step(ids, step, logits);
      count(step.tokens);
      Candidate& candidate = result_.candidates[i];
      compare(logits, candidate);
      const ByteLedger ledger = runners_[i].cache().cache().ledger();
      candidate.held_over_time += static_cast<double>(ledger.held());
      candidate.tokens_over_time += static_cast<double>(runners_[i].cache().tokens());
      const std::string hash = hash_of(logits);
      if (i == 0) {
        baseline_hash = hash;
        baseline_ledger = ledger;
      }
      candidate.logits_differ |= hash != baseline_hash;
      candidate.bytes_differ |= !same_bytes(ledger, baseline_ledger);
    }
  }

  static void end_window(Runner& runner, Candidate& candidate) {
    const KvCache& cache = runner.cache().cache();
    candidate.windows.push_back({runner.cache().tokens(), cache.ledger(), cache.bytes_by_layer()});
  }

  void count(int64_t tokens) {
    throw_if_interrupted();
    done_ += tokens;
    progress_.update(done_);
  }

  std::span<const int32_t> text_;
  const WindowOptions& options_;
  ThreadPool& pool_;
  Progress& progress_;
  bool map_attention_;  // of the next window
  Runner base_;
  Runner rechunked_;
  std::vector<Runner> runners_;  // the baseline, then the recipes
  LogitBuffer base_logits_;
  LogitBuffer logits_;
  LogitBuffer rechunked_logits_;
  Evaluation result_;  // candidates: as runners_
  int64_t done_ = 0;
};

// The caches of a window at their most, and the logits; recipes count as dense f16.
void check_memory(const ModelConfig& config, int64_t tokens, std::size_t recipes, int64_t chunk) {
  const auto dense = [&](DType type) { return tokens * config.kv_bytes_per_token(type, type); };
  const int64_t needed = 2 * dense(DType::kF32) + static_cast<int64_t>(recipes + 1) * dense(DType::kF16) +
                         4 * chunk * config.vocab * int64_t{sizeof(float)};
  const int64_t available = host_memory().available_bytes;
  if (needed > available)
    throw InputError(fmt::format(
        "{} recipes at {} tokens need about {} MiB of memory, {} MiB are free; use fewer recipes, "
        "a smaller --context or a smaller --chunk",
        recipes, tokens, needed >> 20, available >> 20));
}

}  // namespace

void check_evaluation(const ModelConfig& config, const std::vector<Window>& windows,
                      const std::vector<Recipe>& recipes, const WindowOptions& options) {
  for (const Recipe& recipe : recipes) (void)recipe.resolve(config.layers, config.kv_heads);
  if (options.context > config.usable_positions())
    throw InputError(fmt::format("--context: expected at most {} tokens, found {}; the model ends at {}",
                                 config.usable_positions(), options.context,
                                 config.usable_positions_reason()));
  check_memory(config, windows.front().tokens, recipes.size(), options.chunk);
}

Evaluation evaluate(std::span<const int32_t> text, const std::vector<Window>& windows,
                    const std::vector<Recipe>& recipes, const WindowOptions& options, const CacheSetup& setup,
                    Progress& progress, bool map_attention) {
  check_evaluation(setup.decoder.config(), windows, recipes, options);
  return Lockstep(text, recipes, options, setup, progress, map_attention).run(windows);
}

}  // namespace kva
