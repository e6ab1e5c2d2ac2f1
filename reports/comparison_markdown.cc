// comparison.md.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "analyzer/quality/bootstrap.h"
#include "reports/strategy_comparison.h"
#include "reports/tables.h"
#include "reports/text_format.h"

namespace kva {
namespace {

constexpr std::size_t kShownFailures = 50;
constexpr std::size_t kShownWorst = 12;

std::string change(double value) { return format_change(value); }
std::string three(double value) { return format_significant(value); }
std::string seconds(double value) {
  return value < 1 ? fmt::format("{} ms", format_significant(1000 * value)) : format_seconds(value);
}
std::string share(double value) { return format_share(value); }

Cell cell(const SampleEstimate& estimate, std::string (*text)(double)) {
  const Estimate& found = estimate.value;
  if (std::isnan(found.value)) return {"–"};
  if (std::isnan(found.low)) return {text(found.value), found.value};
  return {fmt::format("{} [{}, {}]", text(found.value), text(found.low), text(found.high)), found.value};
}

// The change of perplexity from the mean of its logarithm.
SampleEstimate exponential(SampleEstimate estimate) {
  for (double* value : {&estimate.value.value, &estimate.value.low, &estimate.value.high})
    *value = std::expm1(*value);
  return estimate;
}

std::string counted(std::size_t count, const char* one, const char* several) {
  return fmt::format("{} {}", count, count == 1 ? one : several);
}

std::vector<std::string> distinct(const TrialRows& trials, std::string TrialRow::*member) {
  std::vector<std::string> names;
  std::set<std::string> known;
  for (const TrialRow& row : trials.rows)
    if (known.insert(row.*member).second) names.push_back(row.*member);
  return names;
}

Table strategy_table(const std::vector<StrategyFigures>& figures) {
  Table table{"strategies",
              "Strategies",
              "",
              {{"strategy", false},
               {"samples"},
               {"failed"},
               {"bytes a token"},
               {"prefill time"},
               {"time a token"},
               {"mean KL (nats)"},
               {"perplexity"},
               {"top-1"},
               {"ROUGE-L"}},
              {}};
  const bool judged = std::any_of(figures.begin(), figures.end(),
                                  [](const StrategyFigures& one) { return one.judge_score.samples > 0; });
  if (judged) table.columns.push_back({"judge (1–10)"});
  table.columns.push_back({"rows", false});
  for (const StrategyFigures& one : figures) {
    const bool base = one.group->baseline;
    // Baseline's own figures, and what the others change.
    const auto change_of = [&](const SampleEstimate& estimate, double (*of)(const TrialRow&),
                               std::string (*text)(double)) {
      return base ? Cell{text(spread_of(*one.group, of).mean)} : cell(estimate, change);
    };
    std::vector<Cell> row = {
        {one.group->strategy},
        {format_count(static_cast<double>(sample_mean(*one.group, token_bytes).samples))},
        {format_count(static_cast<double>(one.group->failed))},
        change_of(one.bytes_change, token_bytes, format_bytes),
        change_of(
            one.prefill_change, [](const TrialRow& r) { return r.timing.prefill_s; }, seconds),
        change_of(
            one.token_time_change, [](const TrialRow& r) { return r.token_time(); }, seconds),
        cell(one.kl_mean, three),
        cell(exponential(one.log_perplexity), change),
        cell(one.top1_agreement, share),
        cell(one.rouge_l, three)};
    if (judged) row.push_back(cell(one.judge_score, three));
    row.push_back({cited_lines(*one.group)});
    table.rows.push_back(std::move(row));
  }
  return table;
}

// A row each; `rows` are worst_trials().
Table worst_table(const std::vector<const TrialRow*>& rows) {
  Table table{"worst-samples",
              "Worst samples",
              "",
              {{"strategy", false},
               {"prompt set", false},
               {"sample", false},
               {"mean KL (nats)"},
               {"perplexity"},
               {"top-1"},
               {"ROUGE-L"},
               {"row"}},
              {}};
  for (const TrialRow* row : rows)
    table.rows.push_back({{one_line(row->strategy, 80)},
                          {one_line(row->prompt_set, 60)},
                          {one_line(row->sample, 60)},
                          {three(row->quality.kl_mean)},
                          {change(std::expm1(log_perplexity(*row)))},
                          {share(row->quality.top1_agreement)},
                          {three(row->quality.rouge_l)},
                          {fmt::to_string(row->line)}});
  return table;
}

class Markdown {
 public:
  void heading(int level, const std::string& title) {
    text_ += std::string(static_cast<std::size_t>(level), '#') + " " + escape_markdown(title) + "\n\n";
  }
  void paragraph(const std::string& text) { text_ += escape_markdown(text) + "\n\n"; }
  void item(const std::string& bold, const std::string& text) {
    text_ += fmt::format("- **{}** {}\n", escape_markdown(bold), escape_markdown(text));
  }
  void end_list() { text_ += "\n"; }
  void table(const Table& table) { text_ += to_markdown(table) + "\n"; }
  void plot(const Plot& plot) {
    text_ += fmt::format("![{}](plots/{})\n\n*{}*\n\n", escape_markdown(plot.title), plot.file,
                         escape_markdown(plot.caption));
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

void model_section(Markdown& out, const TrialRows& trials, const std::vector<TrialGroup>& groups,
                   const std::string& model, const std::vector<std::string>& sets) {
  out.heading(2, model);
  if (!baseline_of(groups, model))
    out.paragraph("No trial of Baseline ended well on this model, so nothing stands against it.");
  const auto figures = strategy_figures(groups, model);
  out.heading(3, "Recommendations");
  for (const Recommendation& one : recommendations(figures)) out.item(one.question + ".", one.sentence);
  out.end_list();
  out.heading(3, "Strategies");
  out.table(strategy_table(figures));
  if (const auto worst = worst_trials(trials.rows, model, kShownWorst); !worst.empty()) {
    out.heading(3, "Worst samples");
    out.paragraph("The trials with the largest mean KL against Baseline's continuation.");
    out.table(worst_table(worst));
  }
  if (sets.size() < 2) return;
  for (const std::string& set : sets) {
    const auto groups_of_set = group_trials(trials.rows, set);
    const auto of_set = strategy_figures(groups_of_set, model);
    if (of_set.empty()) continue;
    out.heading(3, "Prompt set " + set);
    out.table(strategy_table(of_set));
  }
}

void failures_section(Markdown& out, const TrialRows& trials) {
  std::size_t failed = 0;
  for (const TrialRow& row : trials.rows) {
    if (row.ok) continue;
    if (failed == 0) out.heading(2, "Failed trials");
    if (failed++ < kShownFailures)
      out.item(fmt::format("Line {}:", row.line),
               fmt::format("{} on {}, {}, sample {}: {}", one_line(row.strategy), one_line(row.model),
                           one_line(row.prompt_set), one_line(row.sample), one_line(row.error, 400)));
  }
  if (failed > kShownFailures) out.item("And", fmt::format("{} more.", failed - kShownFailures));
  if (failed > 0) out.end_list();
}

}  // namespace

std::string comparison_markdown(const TrialRows& trials, const PlotSet& plots) {
  Markdown out;
  const auto groups = group_trials(trials.rows);
  const auto models = distinct(trials, &TrialRow::model), sets = distinct(trials, &TrialRow::prompt_set);
  const auto failed =
      std::count_if(trials.rows.begin(), trials.rows.end(), [](const TrialRow& row) { return !row.ok; });
  out.heading(1, "Comparison of strategies");
  out.paragraph(fmt::format("{}, {} of them failed; {}, {}, {}. Rows are lines of {}, from 1.",
                            counted(trials.rows.size(), "trial", "trials"), failed,
                            counted(distinct(trials, &TrialRow::strategy).size(), "strategy", "strategies"),
                            counted(models.size(), "model", "models"),
                            counted(sets.size(), "prompt set", "prompt sets"), kTrialFile));
  out.paragraph(fmt::format(
      "Each strategy stands against Baseline on the same samples of the same model; repeats of a sample are "
      "averaged first, and every sample counts alike. Bytes are those held at the end, for each token seen, "
      "because answers differ in length. Brackets hold 95% intervals from a bootstrap over "
      "samples "
      "(2,000 resamples; under {} samples there is none): they speak of other samples of these prompt sets. "
      "A recommendation is given where the interval of the best strategy overlaps with that of no other, and "
      "withheld elsewhere. KL, perplexity and top-1 are of Baseline's own continuation, teacher-forced.",
      BlockBootstrap::kMinBlocks));
  for (const std::string& note : trials.notes) out.paragraph("Note: " + note);
  for (const std::string& model : models) model_section(out, trials, groups, model, sets);
  failures_section(out, trials);
  if (!plots.plots.empty()) out.heading(2, "Figures");
  for (const Plot& plot : plots.plots) out.plot(plot);
  return out.take();
}

}  // namespace kva
