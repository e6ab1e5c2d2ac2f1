#include "reports/experiments/trial_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <new>
#include <nlohmann/json.hpp>

#include "analyzer/quality/text_match.h"
#include "reports/decode_timing.h"
#include "reports/experiments/run_log.h"
#include "reports/head_decisions.h"
#include "reports/json_number.h"
#include "reports/passkey.h"
#include "reports/text_format.h"
#include "runtime/error.h"
#include "runtime/model/sampler.h"

namespace kva {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kDigits = 9;

std::vector<int32_t> end_tokens(const Experiment& experiment, const ModelConfig& config) {
  return experiment.ignore_eos ? std::vector<int32_t>() : config.eos_ids;
}

// Tokens that attention still reads, mean over the KV heads of a layer.
double kept_tokens(const KvCache& cache, SequenceId sequence, int layer) {
  const int heads = cache.options().kv_heads;
  int64_t kept = 0;
  for (int head = 0; head < heads; ++head) {
    const int64_t pages = cache.pages(sequence, layer, head);
    for (int64_t page = 0; page < pages; ++page) {
      const PageFacts facts = cache.page({sequence, layer, head, page, Side::kKey});
      kept += facts.tokens -
              std::count(facts.biases.begin(), facts.biases.end(), -std::numeric_limits<float>::infinity());
    }
  }
  return static_cast<double>(kept) / heads;
}

// Chooses the answers, and takes notes.
class Answering : public DialogueTask {
 public:
  Answering(const Trial& trial, const Experiment& experiment, const ModelConfig& config,
            const EvaluatedCache& cache, const StepWatcher& watcher)
      : trial_(trial),
        experiment_(experiment),
        ends_(end_tokens(experiment, config)),
        cache_(cache),
        watcher_(watcher),
        sampler_(seeded(experiment.sampler, trial.seed)),
        answers_(trial.sample->turns.size()) {}

  int32_t next(std::size_t turn, std::span<const float> logits) override {
    answers_[turn].push_back(sampler_.pick(logits));
    return answers_[turn].back();
  }
  bool goes_on(std::size_t turn) override {
    const auto& answer = answers_[turn];
    return is_kept(answer.back()) && static_cast<int64_t>(answer.size()) < experiment_.max_gen_tokens;
  }
  bool is_kept(int32_t token) const override {
    return std::find(ends_.begin(), ends_.end(), token) == ends_.end();
  }
  void stepped(bool of_prompt) override {
    const KvCache& cache = cache_.cache();
    double kept = 0;
    const int layers = cache.options().layers;
    for (int layer = 0; layer < layers; ++layer) kept += kept_tokens(cache, cache_.sequence(), layer);
    const int64_t held = cache.ledger().held();
    steps_["tokens"].push_back(cache_.tokens());
    steps_["cache_tokens"].push_back(rounded(kept / layers, kDigits));
    steps_["bytes"].push_back(held);
    if (watcher_)
      watcher_({.trial = trial_,
                .step = static_cast<int64_t>(steps_["tokens"].size()),
                .tokens = cache_.tokens(),
                .bytes = held,
                .prompt = of_prompt,
                .stats = cache_.stats()});
  }

  const std::vector<std::vector<int32_t>>& answers() const { return answers_; }
  Json take_steps() { return std::move(steps_); }

 private:
  static SamplerOptions seeded(SamplerOptions options, uint64_t seed) {
    options.seed = seed;
    return options;
  }

  const Trial& trial_;
  const Experiment& experiment_;
  std::vector<int32_t> ends_;
  const EvaluatedCache& cache_;
  const StepWatcher& watcher_;
  Sampler sampler_;
  std::vector<std::vector<int32_t>> answers_;
  Json steps_ = {{"tokens", Json::array()}, {"cache_tokens", Json::array()}, {"bytes", Json::array()}};
};

Json turns_json(const Sample& sample, const std::vector<std::vector<int32_t>>& answers,
                const Tokenizer& tokenizer) {
  Json turns = Json::array();
  for (std::size_t i = 0; i < answers.size(); ++i)
    turns.push_back({{"prompt", sample.turns[i].text},
                     {"text", tokenizer.decode(answers[i], true)},
                     {"tokens", answers[i].size()},
                     {"ids", answers[i]}});
  return turns;
}

Json timing_json(const DialogueTimes& times, const CompressorStats& stats) {
  Json token_s = Json::array();
  for (const double seconds : times.token_s) token_s.push_back(rounded(seconds));
  return {{"prefill_s", rounded(times.prefill_s)},
          {"first_token_s", rounded(times.first_token_s)},
          {"generation_s", rounded(times.generation_s)},
          {"total_s", rounded(times.prefill_s + times.generation_s)},
          {"codec_s", rounded(stats.seconds)},
          {"observe_s", rounded(stats.observe_seconds)},
          {"token_s", std::move(token_s)}};
}

Json ledger_json(const ByteLedger& ledger) {
  return {{"payload", ledger.payload}, {"scales", ledger.scales}, {"side", ledger.side},
          {"tables", ledger.tables},   {"slack", ledger.slack},   {"workspace", ledger.workspace},
          {"peak", ledger.peak}};
}

Json layers_json(const EvaluatedCache& cache) {
  Json bytes = Json::array(), tokens = Json::array();
  for (const double of_layer : cache.cache().bytes_by_layer()) bytes.push_back(rounded(of_layer, kDigits));
  for (int layer = 0; layer < cache.cache().options().layers; ++layer)
    tokens.push_back(rounded(kept_tokens(cache.cache(), cache.sequence(), layer), kDigits));
  return {{"bytes", std::move(bytes)}, {"tokens", std::move(tokens)}};
}

std::vector<std::vector<int32_t>> answers_of(const Json& row) {
  std::vector<std::vector<int32_t>> answers;
  for (const Json& turn : row.at("turns")) answers.push_back(turn.at("ids").get<std::vector<int32_t>>());
  return answers;
}

std::vector<int32_t> joined(const std::vector<std::vector<int32_t>>& answers) {
  std::vector<int32_t> all;
  for (const auto& answer : answers) all.insert(all.end(), answer.begin(), answer.end());
  return all;
}

// A Baseline that a row could have been edited into is no reference.
bool is_usable(const Json* baseline, const Sample& sample, int64_t vocab) {
  if (!baseline || baseline->value("status", "") != "ok") return false;
  try {
    const auto answers = answers_of(*baseline);
    if (answers.size() != sample.turns.size()) return false;
    for (std::size_t i = 0; i < answers.size(); ++i) {
      if (answers[i].empty() == sample.turns[i].answered) return false;
      for (const int32_t id : answers[i])
        if (id < 0 || id >= vocab) return false;
    }
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

Json frame(const Trial& trial, const Experiment& experiment, const RunModel& model) {
  const Sample& sample = *trial.sample;
  const Strategy& strategy = experiment.strategies[trial.strategy];
  return {{"trial", trial.id},
          {"experiment", experiment.name},
          {"mode", experiment.mode},
          {"model", {{"name", model.identity.name}, {"identity", model.identity.tensor_hash}}},
          {"strategy", strategy.written},
          {"recipe", strategy.recipe.text()},
          {"prompt_set", sample.set},
          {"sample", sample.name},
          {"context_length", sample.context_length > 0 ? Json(sample.context_length) : Json(nullptr)},
          {"repeat", trial.repeat},
          {"seed", trial.seed},
          {"device", model.device.kind()},
          {"batch_size", experiment.batch_size},
          {"page_size", experiment.page_tokens},
          {"started", utc_now()},
          {"status", "ok"}};
}

}  // namespace

TrialRunner::TrialRunner(const RunPlan& plan, std::size_t model, Decoder& decoder, ThreadPool& pool)
    : plan_(plan),
      model_(plan.models[model]),
      decoder_(decoder),
      pool_(pool),
      classes_(std::make_shared<const TokenClasses>(model_.found.tokenizer)) {}

void TrialRunner::warm_up(const Trial& trial) {
  const Experiment& experiment = plan_.file.experiments[trial.experiment];
  std::vector<std::vector<int32_t>> answers;
  for (const SampleTurn& turn : trial.sample->turns)
    answers.push_back(turn.answered ? std::vector<int32_t>{0, 0} : std::vector<int32_t>{});
  EvaluatedCache cache(experiment.strategies.front().recipe, setup(trial));
  (void)Reference(cache, model_.found.config.vocab, *trial.sample, std::move(answers), {},
                  {.chunk_tokens = experiment.chunk_tokens, .copies = experiment.batch_size});
}

Json TrialRunner::run(const Trial& trial, const Json* baseline) {
  const Json head = frame(trial, plan_.file.experiments[trial.experiment], model_);
  const auto failed = [&](const std::string& error) {
    Json row = head;
    row["status"] = "failed";
    row["error"] = one_line(error, 1000);
    return row;
  };
  try {
    Json row = head;
    fill(trial, baseline, row);
    return row;
  } catch (const InputError& error) {
    return failed(error.what());
  } catch (const std::bad_alloc&) {
    return failed("out of memory");
  }
}

std::optional<AttentionMaps> TrialRunner::attention(const Trial& trial, const Json* baseline) {
  const Strategy& strategy = plan_.file.experiments[trial.experiment].strategies[trial.strategy];
  if (!is_usable(baseline, *trial.sample, model_.found.config.vocab)) return std::nullopt;
  const Reference& reference = this->reference(trial, *baseline);
  EvaluatedCache cache(strategy.recipe, setup(trial));
  cache.map_attention(true);
  std::optional<AttentionMaps> maps;
  (void)reference.score(cache, *trial.sample, pool_,
                        [&] { maps = take_attention(cache.cache(), cache.sequence(), strategy.written); });
  return maps;
}

Calibration& TrialRunner::calibration(const Experiment& experiment) {
  if (!calibration_ || calibration_page_tokens_ != experiment.page_tokens) {
    calibration_.emplace(
        general_calibration(decoder_, model_.found.tokenizer, experiment.page_tokens, pool_, quiet_));
    calibration_page_tokens_ = experiment.page_tokens;
  }
  return *calibration_;
}

CacheSetup TrialRunner::setup(const Trial& trial) {
  const Experiment& experiment = plan_.file.experiments[trial.experiment];
  return {.decoder = decoder_,
          .calibration = calibration(experiment),
          .page_tokens = experiment.page_tokens,
          .seed = trial.seed,
          .pool = pool_,
          .classes = classes_};
}

void TrialRunner::fill(const Trial& trial, const Json* baseline, Json& row) {
  const Experiment& experiment = plan_.file.experiments[trial.experiment];
  const Sample& sample = *trial.sample;
  const int64_t vocab = model_.found.config.vocab;
  const Recipe& recipe = experiment.strategies[trial.strategy].recipe;
  EvaluatedCache cache(recipe, setup(trial));
  Answering task(trial, experiment, model_.found.config, cache, watcher_);
  const DialogueTimes times = run_dialogue(
      cache, vocab, sample, {.chunk_tokens = experiment.chunk_tokens, .copies = experiment.batch_size}, task);
  const CompressorStats stats = cache.stats();
  const auto& answers = task.answers();
  row["prompt_tokens"] = sample.prompt_tokens();
  row["generated_tokens"] = joined(answers).size();
  row["turns"] = turns_json(sample, answers, model_.found.tokenizer);
  row["timing"] = timing_json(times, stats);
  row["steps"] = task.take_steps();
  row["layers"] = layers_json(cache);
  row["ledger"] = ledger_json(cache.cache().ledger());
  row["process_peak_bytes"] = peak_process_bytes();
  row["device_memory"] = device_memory_json(model_.device);
  row["counters"] = Json::object();
  for (const auto& [name, count] : stats.counters) row["counters"][name] = rounded(count, kDigits);
  if (!stats.decisions.empty()) row["heads"] = decisions_json(stats.decisions);
  row["remarks"] = sample.remarks;
  for (const std::string& remark : stats.remarks) row["remarks"].push_back(remark);
  if (!sample.key.empty()) {
    const PasskeyScore score = score_passkey(model_.found.tokenizer.decode(answers.back(), true), sample.key);
    row["passkey"] = {{"key", sample.key}, {"exact", score.exact}, {"digits", score.digits}};
  }
  cache.end();
  if (!experiment.quality) return;
  const Json* base = trial.strategy == 0 ? &row : baseline;
  if (is_usable(base, sample, vocab))
    add_quality(trial, *base, row);
  else
    row["remarks"].push_back("no quality: Baseline has no answers to this sample");
}

const Reference& TrialRunner::reference(const Trial& trial, const Json& baseline) {
  if (!reference_ || reference_group_ != trial.group) {
    const Experiment& experiment = plan_.file.experiments[trial.experiment];
    reference_.reset();
    EvaluatedCache cache(experiment.strategies.front().recipe, setup(trial));
    reference_.emplace(cache, model_.found.config.vocab, *trial.sample, answers_of(baseline),
                       end_tokens(experiment, model_.found.config),
                       DialogueOptions{.chunk_tokens = experiment.chunk_tokens});
    reference_group_ = trial.group;
  }
  return *reference_;
}

void TrialRunner::add_quality(const Trial& trial, const Json& baseline, Json& row) {
  const Experiment& experiment = plan_.file.experiments[trial.experiment];
  const Reference& reference = this->reference(trial, baseline);
  EvaluatedCache cache(experiment.strategies[trial.strategy].recipe, setup(trial));
  const ScoreSeries series = reference.score(cache, *trial.sample, pool_);
  const QualitySummary summary = summarize(series, {});
  const std::vector<int32_t> said = joined(answers_of(row));
  const std::vector<int32_t> base_said = reference.tokens();
  row["quality"] = {{"perplexity", rounded(summary.perplexity, kDigits)},
                    {"perplexity_base", rounded(summary.perplexity_base, kDigits)},
                    {"kl_mean", rounded(summary.kl_mean.value, kDigits)},
                    {"kl_max", rounded(summary.kl_max, kDigits)},
                    {"top1_agreement", rounded(summary.top1_agreement.value, kDigits)},
                    {"rouge_l", rounded(rouge_l(base_said, said), kDigits)},
                    {"edit_distance", edit_distance(base_said, said)},
                    {"scored_tokens", summary.tokens}};
  if (summary.tokens < static_cast<int64_t>(base_said.size()))
    row["remarks"].push_back(fmt::format("quality of the first {} of {} tokens: more logits have no room",
                                         summary.tokens, base_said.size()));
}

}  // namespace kva
