#include "reports/experiments/experiment_run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "reports/dashboard.h"
#include "reports/experiments/experiment_plots.h"
#include "reports/experiments/experiment_summary.h"
#include "reports/experiments/profile.h"
#include "reports/experiments/results_folder.h"
#include "reports/experiments/run_log.h"
#include "reports/experiments/trial_run.h"
#include "reports/head_decisions.h"
#include "reports/text_format.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/io/file.h"

namespace kva {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::string file_in(const std::string& folder, const std::string& name) {
  return (fs::path(folder) / name).string();
}

// What a strategy did since the step before.
class DecisionLog {
 public:
  explicit DecisionLog(RunLog& log) : log_(log) {}

  void add(const StepReport& step) {
    if (step.trial.id != trial_) {
      trial_ = step.trial.id;
      before_ = {};
    }
    std::string counters;
    for (const auto& now : step.stats.counters) {
      const auto known = std::find_if(before_.counters.begin(), before_.counters.end(),
                                      [&](const auto& one) { return one.first == now.first; });
      const double since = now.second - (known == before_.counters.end() ? 0 : known->second);
      if (since != 0) counters += fmt::format(", {} {:+g}", now.first, since);
    }
    if (step.prompt && step.stats.decisions != before_.decisions)
      for (const HeadDecision& decision : step.stats.decisions)
        log_.line(fmt::format("{} {}", step.trial.id, decision_line(decision)));
    if (step.stats.plans != before_.plans || !counters.empty())
      log_.line(fmt::format(
          "{} step {} ({} tokens): {} plans, {} page sides, {} bytes freed{}; {} bytes held", step.trial.id,
          step.step, step.tokens, step.stats.plans - before_.plans, step.stats.sides - before_.sides,
          step.stats.freed_bytes - before_.freed_bytes, counters, step.bytes));
    before_ = step.stats;
  }

 private:
  RunLog& log_;
  std::string trial_;
  CompressorStats before_;
};

class Run {
 public:
  Run(const RunPlan& plan, const RunOptions& options, std::unique_ptr<Judge> judge, ThreadPool& pool,
      Progress& progress)
      : plan_(plan),
        options_(options),
        pool_(pool),
        progress_(progress),
        folder_(options.save ? std::make_unique<ResultsFolder>(plan.file.output_dir, options.shard)
                             : nullptr),
        log_(options.save ? file_in(plan.file.output_dir, "run.log") : ""),
        decisions_(log_),
        judge_(std::move(judge)) {}

  RunOutcome all(const RunStamp& stamp) {
    RunOutcome outcome{.folder = options_.save ? plan_.file.output_dir : ""};
    outcome.trials = static_cast<int64_t>(plan_.trials.size());
    for (const Trial& trial : plan_.trials) outcome.resumed += row_of(trial) ? 1 : 0;
    log_.line(fmt::format("{}; {} trials, {} of them finished before; {}", stamp.command, outcome.trials,
                          outcome.resumed, version_line()));
    if (outcome.resumed > 0)
      progress_.say(fmt::format("{} of {} trials are finished already", outcome.resumed, outcome.trials));
    done_ = outcome.resumed;
    for (std::size_t model = 0; model < plan_.models.size(); ++model) run_model(model, outcome);
    if (judge_) ask_judge(outcome);
    std::vector<const Json*> rows;
    for (const Trial& trial : plan_.trials) rows.push_back(row_of(trial));
    for (const Json* row : rows) outcome.failed += row->at("status") != "ok" ? 1 : 0;
    outcome.table = outcome_table(rows);
    if (options_.save) write(rows, stamp, outcome);
    log_.line(fmt::format("finished: {} trials, {} failed", outcome.trials, outcome.failed));
    return outcome;
  }

 private:
  const Json* row_of(const Trial& trial) const {
    if (folder_) return folder_->row(trial.id);
    const auto found = unsaved_.find(trial.id);
    return found == unsaved_.end() ? nullptr : &found->second;
  }

  void run_model(std::size_t model, RunOutcome& outcome) {
    const auto waits = [&](const Trial& trial) {
      return trial.model == model && (options_.save_attention || !row_of(trial));
    };
    const auto first = std::find_if(plan_.trials.begin(), plan_.trials.end(), waits);
    if (first == plan_.trials.end()) return;
    const RunModel& chosen = plan_.models[model];
    progress_.stage("load", 0, "");
    Decoder decoder =
        Decoder::load(chosen.found.folder.path,
                      {.weights = weight_form(chosen.options.weights), .device = chosen.device.ops}, pool_);
    progress_.finish();
    TrialRunner runner(plan_, model, decoder, pool_);
    runner.warm_up(*first);
    if (options_.profile || options_.debug) runner.watch([&](const StepReport& step) { watch(step); });
    progress_.stage("trials of " + one_line(chosen.identity.name, 60),
                    static_cast<int64_t>(plan_.trials.size()), "trials");
    const Json* baseline = nullptr;
    int64_t group = -1;
    for (const Trial& trial : plan_.trials) {
      if (trial.model != model) continue;
      throw_if_interrupted();
      if (trial.group != group) baseline = nullptr;
      group = trial.group;
      if (!row_of(trial)) finish(trial, runner.run(trial, baseline));
      if (trial.strategy == 0) baseline = row_of(trial);
      progress_.update(done_);
    }
    progress_.finish();
    if (options_.save_attention) save_attention(*first, runner, outcome);
  }

  // Of the group that `first` belongs to, Baseline's trial.
  void save_attention(const Trial& first, TrialRunner& runner, RunOutcome& outcome) {
    std::vector<const Trial*> group;
    for (const Trial& trial : plan_.trials)
      if (trial.model == first.model && trial.group == first.group) group.push_back(&trial);
    progress_.stage("attention", static_cast<int64_t>(group.size()), "strategies");
    std::vector<AttentionMaps> maps;
    for (const Trial* trial : group) {
      throw_if_interrupted();
      if (row_of(*trial)->at("status") == "ok")
        if (auto found = runner.attention(*trial, row_of(*group.front()))) maps.push_back(std::move(*found));
      progress_.update(static_cast<int64_t>(maps.size()));
    }
    const std::string& model = plan_.models[first.model].identity.name;
    if (maps.empty()) {
      outcome.notes.push_back(
          fmt::format("images: Baseline has no answers to the first sample of {}", model));
      return;
    }
    std::string folder = file_in(plan_.file.output_dir, "images");
    if (plan_.models.size() > 1) folder = file_in(folder, fmt::format("{}", first.model + 1));
    const std::string text =
        fmt::format("{} of {}, and Baseline's answers", first.sample->name, first.sample->set);
    for (std::string& note : write_attention(folder, maps, model, text, options_.plots, progress_))
      outcome.notes.push_back(std::move(note));
  }

  // The judge writes into the rows, and takes the folder for that.
  void ask_judge(RunOutcome& outcome) {
    folder_.reset();
    try {
      const JudgedRows rows = judge_results(plan_.file.output_dir, *judge_, progress_);
      log_.line(fmt::format("{} trials judged by {}, rubric {} ({} requests); {} had been before",
                            rows.judged, judge_->model(), judge_->rubric(), judge_->requests(), rows.kept));
    } catch (const InputError& error) {
      progress_.finish();
      outcome.judge_error = error.what();
      log_.line(outcome.judge_error);
    }
    folder_ = std::make_unique<ResultsFolder>(plan_.file.output_dir, options_.shard);
  }

  void watch(const StepReport& step) {
    if (options_.profile) {
      const Experiment& experiment = plan_.file.experiments[step.trial.experiment];
      profile_.name_strategy(experiment.strategies[step.trial.strategy].written);
      profile_.add(step);
    }
    if (options_.debug) decisions_.add(step);
  }

  void finish(const Trial& trial, const Json& row) {
    if (folder_)
      folder_->append(row);
    else
      unsaved_.insert_or_assign(trial.id, row);
    ++done_;
    const bool ok = row.at("status") == "ok";
    log_.line(fmt::format("{} {} of {}, {}, seed {}, repeat {}: {}", trial.id, trial.sample->name,
                          trial.sample->set, row.at("strategy").get<std::string>(), trial.seed, trial.repeat,
                          ok ? "ok" : row.at("error").get<std::string>()));
    if (!ok)
      progress_.say(fmt::format("{} on {} of {}: failed: {}", row.at("strategy").get<std::string>(),
                                trial.sample->name, trial.sample->set, row.at("error").get<std::string>()));
  }

  // A shard has no comparison to make: whoever joins it does.
  void write(const std::vector<const Json*>& rows, const RunStamp& stamp, RunOutcome& outcome) {
    const std::string& folder = plan_.file.output_dir;
    std::vector<Figure> figures;
    if (options_.profile) {
      write_text_file(file_in(folder, "profile.csv"), profile_.csv());
      figures.push_back(profile_figure(profile_));
    }
    if (!options_.shard.is_part()) {
      const std::vector<std::string> strategies = strategies_of(rows);
      const std::vector<std::string> files = strategy_files(rows, strategies);
      for (std::size_t i = 0; i < strategies.size(); ++i) {
        write_text_file(file_in(folder, files[i]), strategy_json(rows, strategies[i]).dump(1) + "\n");
        if (const std::string layers = strategy_layers_csv(rows, strategies[i]); !layers.empty())
          write_text_file(file_in(folder, fs::path(files[i]).replace_extension(".layers.csv").string()),
                          layers);
      }
      const Json head = {{"provenance", provenance_json(stamp, pool_.threads(), 0)},
                         {"output_dir", folder},
                         {"strategy_files", files}};
      write_text_file(file_in(folder, "experiment_summary.json"),
                      experiment_summary_json(rows, head).dump(1) + "\n");
      if (options_.plots)
        for (Figure& figure : experiment_figures(rows)) figures.push_back(std::move(figure));
    }
    if (options_.plots) outcome.notes = draw_figures(std::move(figures), file_in(folder, "plots"));
    if (options_.dashboard && !options_.shard.is_part())
      for (std::string& note : write_dashboard(folder, {.plots = options_.plots}))
        outcome.notes.push_back(std::move(note));
  }

  const RunPlan& plan_;
  const RunOptions& options_;
  ThreadPool& pool_;
  Progress& progress_;
  std::unique_ptr<ResultsFolder> folder_;
  std::map<std::string, Json> unsaved_;
  RunLog log_;
  DecisionLog decisions_;
  std::unique_ptr<Judge> judge_;
  Profile profile_;
  int64_t done_ = 0;
};

}  // namespace

std::string outcome_table(const std::vector<const Json*>& rows) {
  std::string table =
      fmt::format("{:<44} {:>6} {:>10} {:>7} {:>9} {:>10} {:>9} {:>6} {:>7}\n", "strategy", "trials", "cache",
                  "bytes", "tokens/s", "perplexity", "mean KL", "top-1", "ROUGE-L");
  const std::vector<StrategySummary> summaries = summarize_rows(rows, false);
  const bool judged = std::any_of(summaries.begin(), summaries.end(),
                                  [](const StrategySummary& one) { return std::isfinite(one.judge_score); });
  if (judged) table.insert(table.size() - 1, fmt::format(" {:>6}", "judge"));
  const auto or_dash = [](double value, const std::string& text) {
    return std::isfinite(value) ? text : "–";
  };
  for (const StrategySummary& one : summaries) {
    table += fmt::format(
        "{:<44} {:>6} {:>10} {:>7} {:>9} {:>10} {:>9} {:>6} {:>7}", one_line(one.key.strategy, 44),
        one.failed > 0 ? fmt::format("{}-{}", one.trials, one.failed) : fmt::to_string(one.trials),
        format_bytes(one.cache_bytes), format_share(one.cache_ratio, 0), format_significant(one.tokens_per_s),
        format_significant(one.perplexity, 4), or_dash(one.kl_mean, format_significant(one.kl_mean)),
        format_share(one.top1_agreement), format_number(one.rouge_l, 2));
    if (judged) table += fmt::format(" {:>6}", format_number(one.judge_score, 2));
    table += "\n";
  }
  return table;
}

RunOutcome run_experiments(const ExperimentFile& file, const RunOptions& options, const RunStamp& stamp,
                           ThreadPool& pool, Progress& progress) {
  // What is wrong with its URL is said before anything runs.
  auto judge = options.judge ? std::make_unique<Judge>(*options.judge) : nullptr;
  const RunPlan plan = plan_run(file, options.shard);
  for (const std::string& note : plan.notes) progress.say(note);
  std::set<std::string> devices;
  for (const RunModel& model : plan.models) devices.insert(model.device.name());
  RunStamp ran = stamp;
  ran.device = fmt::format("{}", fmt::join(devices, " and "));
  return Run(plan, options, std::move(judge), pool, progress).all(ran);
}

}  // namespace kva
