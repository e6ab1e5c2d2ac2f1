#include "compressors/compressor.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>

#include "compressors/outline.h"
#include "compressors/step.h"
#include "kernels/check.h"
#include "runtime/clock.h"

namespace kva {
namespace {

// Neighbouring steps of a pipeline with the same trigger: a page goes through all of them at once.
struct Stage {
  Trigger trigger;
  std::vector<std::unique_ptr<Step>> steps;
  std::map<SequenceId, int64_t> next_page;
  std::map<SequenceId, int64_t> prompt_tokens;  // of sequences whose prompt has ended
  std::map<SequenceId, int64_t> last_run;       // tokens at the time, for @every
  std::map<SequenceId, int64_t> last_revision;  // the same of steps that work on tables

  bool takes_pages() const {
    return std::any_of(steps.begin(), steps.end(), [](const auto& step) { return !step->works_on_tables(); });
  }

  int64_t window() const {
    int64_t most = 0;
    for (const auto& step : steps) most = std::max(most, step->window_tokens());
    return most;
  }
  int64_t tokens_to_begin() const {
    int64_t most = 0;
    for (const auto& step : steps) most = std::max(most, step->tokens_to_begin());
    return most;
  }
};

// A statement of the recipe on the cells that it names.
struct Pipeline {
  std::vector<Cell> cells;
  std::vector<Stage> stages;
};

std::vector<Stage> make_stages(const Statement& statement) {
  std::vector<Stage> stages;
  for (const RecipeStep& step : statement.pipeline) {
    if (stages.empty() || !(stages.back().trigger == step.trigger)) {
      stages.emplace_back();
      stages.back().trigger = step.trigger;
    }
    KVA_CHECK(step.method->make != nullptr, "every listed method makes a step");
    stages.back().steps.push_back(step.method->make(step.arguments));
  }
  return stages;
}

}  // namespace

struct Compressor::Impl {
  KvCache& cache;
  ThreadPool& pool;
  uint64_t seed;
  std::shared_ptr<const TokenClasses> classes;
  std::vector<Pipeline> pipelines;
  std::map<SequenceId, std::vector<int32_t>> ids;  // of sequences' tokens, where their classes are known
  CompressorStats stats;

  Impl(const Recipe& recipe, KvCache& cache_, ThreadPool& pool_, uint64_t seed_,
       std::shared_ptr<const TokenClasses> classes_)
      : cache(cache_), pool(pool_), seed(seed_), classes(std::move(classes_)) {
    const KvCacheOptions& options = cache.options();
    const RecipeCells cells = recipe.resolve(options.layers, options.kv_heads);
    pipelines.resize(recipe.statements().size());
    for (std::size_t i = 0; i < pipelines.size(); ++i) {
      Pipeline& pipeline = pipelines[i];
      for (int layer = 0; layer < options.layers; ++layer)
        for (int head = 0; head < options.kv_heads; ++head)
          for (const Side side : {Side::kKey, Side::kValue})
            if (cells.statement(layer, head, side) == static_cast<int>(i))
              pipeline.cells.push_back({layer, head, side});
      if (pipeline.cells.empty()) continue;
      pipeline.stages = make_stages(recipe.statements()[i]);
      if (options.backend->device()) expect_readable(recipe.statements()[i], context(pipeline));
      for (Stage& stage : pipeline.stages)
        for (const auto& step : stage.steps) {
          step->begin(context(pipeline));
          for (const Cell& cell : pipeline.cells) cache.observe(cell.layer, cell.kv_head, step->observes());
        }
      if (pipeline.stages.size() > 1)
        stats.remarks.push_back(fmt::format("{}: each later trigger decodes and encodes again, a second loss",
                                            recipe.statements()[i].pipeline_text()));
    }
  }

  StepContext context(const Pipeline& pipeline) const {
    return {cache, pool, pipeline.cells, seed, classes.get()};
  }

  // Calls body(pipeline, step) for every step of the recipe.
  template <class Body>
  void for_steps(const Body& body) {
    for (Pipeline& pipeline : pipelines)
      for (Stage& stage : pipeline.stages)
        for (const auto& step : stage.steps) body(pipeline, *step);
  }

  // Up to which page a stage may go, given the sequence's tokens.
  int64_t due_pages(Stage& stage, SequenceId sequence) const {
    const int64_t tokens = cache.tokens(sequence);
    const int64_t page_tokens = cache.options().page_tokens;
    int64_t settled = tokens - stage.window();
    if (tokens < stage.tokens_to_begin()) return 0;
    switch (stage.trigger.kind) {
      case Trigger::Kind::kSeal: break;
      case Trigger::Kind::kTokens:
        if (tokens <= stage.trigger.tokens) return 0;
        break;
      case Trigger::Kind::kPrefill: {
        const auto prompt = stage.prompt_tokens.find(sequence);
        if (prompt == stage.prompt_tokens.end()) return 0;
        settled = std::min(settled, prompt->second);
        break;
      }
      case Trigger::Kind::kEvery:
        if (tokens - stage.last_run[sequence] < stage.trigger.tokens) return 0;
        stage.last_run[sequence] = tokens;
        break;
    }
    return std::max<int64_t>(0, settled / page_tokens);
  }

  // Whether steps of the stage that work on tables act now.
  bool revises(Stage& stage, SequenceId sequence, bool prompt_ended) const {
    const int64_t tokens = cache.tokens(sequence);
    switch (stage.trigger.kind) {
      case Trigger::Kind::kSeal: return true;
      case Trigger::Kind::kTokens: return tokens > stage.trigger.tokens;
      case Trigger::Kind::kPrefill: return prompt_ended;
      case Trigger::Kind::kEvery:
        if (tokens - stage.last_revision[sequence] < stage.trigger.tokens) return false;
        stage.last_revision[sequence] = tokens;
        return true;
    }
    return false;
  }

  void run(SequenceId sequence, bool prompt_ended = false) {
    const auto start = Clock::now();
    for (Pipeline& pipeline : pipelines) {
      int64_t limit = cache.sealed_pages(sequence);
      for (Stage& stage : pipeline.stages) {
        if (!stage.takes_pages()) continue;
        limit = std::min(limit, due_pages(stage, sequence));
        int64_t& next = stage.next_page[sequence];
        for (; next < limit && ready(pipeline, stage, sequence, next); ++next)
          run(pipeline, stage, sequence, next);
        limit = next;
      }
      const Revision revision{.sequence = sequence,
                              .settled = limit * cache.options().page_tokens,
                              .prompt_ended = prompt_ended,
                              .ids = ids[sequence]};
      for (Stage& stage : pipeline.stages)
        if (revises(stage, sequence, prompt_ended)) revise(pipeline, stage, revision);
    }
    stats.seconds += seconds_since(start);
  }

  bool ready(const Pipeline& pipeline, const Stage& stage, SequenceId sequence, int64_t page) const {
    return std::all_of(stage.steps.begin(), stage.steps.end(),
                       [&](const auto& step) { return step->ready(context(pipeline), sequence, page); });
  }

  void run(Pipeline& pipeline, Stage& stage, SequenceId sequence, int64_t page) {
    const bool numbers = std::any_of(stage.steps.begin(), stage.steps.end(),
                                     [](const auto& step) { return step->reads_numbers(); });
    Draft draft = read_draft(cache, sequence, page, pipeline.cells, pool, numbers);
    for (const auto& step : stage.steps) step->run(context(pipeline), draft);
    apply(plan_of(draft, cache, pool));
    for (const auto& step : stage.steps) step->applied(context(pipeline), draft);
  }

  void revise(Pipeline& pipeline, Stage& stage, const Revision& revision) {
    for (const auto& step : stage.steps) {
      if (!step->works_on_tables()) continue;
      bool changed = false;
      for (const Plan& plan : step->revise(context(pipeline), revision)) changed |= apply(plan);
      if (changed) for_steps([&](Pipeline& of, Step& other) { other.moved(context(of), revision.sequence); });
    }
  }

  // Whether the plan changed anything.
  bool apply(const Plan& plan) {
    if (plan.empty()) return false;
    const int64_t predicted = cache.predicted_bytes(plan);
    const auto stored = [&] {
      const ByteLedger ledger = cache.ledger();
      return ledger.payload + ledger.scales;
    };
    const int64_t before = stored();
    cache.apply(plan);
    stats.predicted_bytes -= predicted;
    stats.freed_bytes += before - stored();
    ++stats.plans;
    count(plan);
    return true;
  }

  void count(const Plan& applied) {
    const auto side = [&](int64_t tokens) {
      ++stats.sides;
      stats.values += tokens * cache.options().head_dim;
    };
    for (const PlanEdit& edit : applied.edits) side(cache.page(edit.at).tokens);
    for (const PlanRewrite& rewrite : applied.rewrites)
      for (int i = 0; i < 2; ++i) side(static_cast<int64_t>(rewrite.positions.size()));
  }

  bool any_step(const std::function<bool(const Step&)>& is) const {
    for (const Pipeline& pipeline : pipelines)
      for (const Stage& stage : pipeline.stages)
        for (const auto& step : stage.steps)
          if (is(*step)) return true;
    return false;
  }

  void forget(SequenceId sequence) {
    ids.erase(sequence);
    for (Pipeline& pipeline : pipelines) {
      for (Stage& stage : pipeline.stages) {
        stage.next_page.erase(sequence);
        stage.prompt_tokens.erase(sequence);
        stage.last_run.erase(sequence);
        stage.last_revision.erase(sequence);
        for (const auto& step : stage.steps) step->forget(context(pipeline), sequence);
      }
    }
  }
};

bool Compressor::needs_sample() const {
  return impl_->any_step([](const Step& step) { return step.needs_sample(); });
}

bool Compressor::wants_part_losses() const {
  return impl_->any_step([](const Step& step) { return step.wants_part_losses(); });
}

void Compressor::fit(const PageSet& sample) {
  const KvCacheOptions& options = impl_->cache.options();
  KVA_CHECK(sample.layers == options.layers && sample.kv_heads == options.kv_heads &&
                sample.head_dim == options.head_dim && sample.page_tokens == options.page_tokens &&
                sample.key_basis == options.key_basis,
            "a sample of the cache's shape");
  for (const Pipeline& pipeline : impl_->pipelines)
    for (const Stage& stage : pipeline.stages)
      for (const auto& step : stage.steps)
        if (step->needs_sample()) step->fit(impl_->context(pipeline), sample);
}

KvCacheOptions Compressor::cache_options(const Recipe& recipe, KvCacheOptions of_decoder) {
  of_decoder.key_basis = recipe.key_basis();
  of_decoder.positions = recipe.positions();
  // Pages fill in the type that the recipe keeps them in; where it keeps several, in one that loses nothing.
  std::optional<DType> kept;
  for (const Statement& statement : recipe.statements()) {
    for (const RecipeStep& step : statement.pipeline) {
      const auto type =
          step.method->name == "dense" ? parse_dtype(step.arguments.word("type")) : std::optional<DType>();
      if (!type || statement.implied) continue;
      kept = !kept || kept == type ? *type : DType::kF32;
    }
  }
  if (kept) of_decoder.k_codec = of_decoder.v_codec = make_dense_codec(*kept);
  return of_decoder;
}

bool Compressor::shares_prefixes(const Recipe& recipe) {
  for (const Statement& statement : recipe.statements())
    for (const RecipeStep& step : statement.pipeline)
      if (step.method->name == "dedup" && step.arguments.word("mode") == "prefix") return true;
  return false;
}

Compressor::Compressor(const Recipe& recipe, KvCache& cache, ThreadPool& pool, uint64_t seed,
                       std::shared_ptr<const TokenClasses> classes)
    : impl_(std::make_unique<Impl>(recipe, cache, pool, seed, std::move(classes))) {}

Compressor::~Compressor() = default;

void Compressor::after_step(const Batch& batch, std::span<const int32_t> tokens) {
  for (const BatchSpan& span : batch.spans) {
    if (impl_->classes && !tokens.empty()) {
      std::vector<int32_t>& ids = impl_->ids[span.sequence];
      const auto first = tokens.begin() + span.first_row;
      ids.insert(ids.end(), first, first + span.tokens);
    }
    impl_->run(span.sequence);
  }
}

void Compressor::begin_prompt(SequenceId sequence, int64_t start, std::span<const int32_t> prompt) {
  impl_->for_steps([&](Pipeline& of, Step& step) {
    step.begin_prompt(impl_->context(of), sequence, start, static_cast<int64_t>(prompt.size()));
  });
}

void Compressor::end_prompt(SequenceId sequence) {
  for (Pipeline& pipeline : impl_->pipelines)
    for (Stage& stage : pipeline.stages) stage.prompt_tokens[sequence] = impl_->cache.tokens(sequence);
  impl_->run(sequence, true);
}

void Compressor::after_fork(SequenceId sequence, SequenceId copy) {
  const int64_t pages = impl_->cache.sealed_pages(copy);
  if (const auto ids = impl_->ids.find(sequence); ids != impl_->ids.end()) {
    const auto shared =
        ids->second.begin() + std::min<int64_t>(std::ssize(ids->second), impl_->cache.tokens(copy));
    impl_->ids[copy] = std::vector<int32_t>(ids->second.begin(), shared);
  }
  for (Pipeline& pipeline : impl_->pipelines) {
    for (Stage& stage : pipeline.stages) {
      stage.next_page[copy] = std::min(stage.next_page[sequence], pages);
      for (const auto& step : stage.steps)
        step->forked(impl_->context(pipeline), sequence, copy, stage.next_page[copy]);
    }
  }
}

void Compressor::before_free(SequenceId sequence) { impl_->forget(sequence); }

CompressorStats Compressor::stats() const {
  CompressorStats stats = impl_->stats;
  stats.observe_seconds = impl_->cache.observe_seconds();
  for (const Pipeline& pipeline : impl_->pipelines) {
    for (const Stage& stage : pipeline.stages) {
      for (const auto& step : stage.steps) {
        for (const std::string& remark : step->remarks()) stats.remarks.push_back(remark);
        for (HeadDecision& decision : step->decisions()) stats.decisions.push_back(std::move(decision));
        for (const auto& counter : step->counters()) {
          const auto known = std::find_if(stats.counters.begin(), stats.counters.end(),
                                          [&](const auto& entry) { return entry.first == counter.first; });
          if (known == stats.counters.end())
            stats.counters.push_back(counter);
          else
            known->second += counter.second;
        }
      }
    }
  }
  return stats;
}

}  // namespace kva
