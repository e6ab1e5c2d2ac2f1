#include "reports/strategy_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "analyzer/quality/bootstrap.h"
#include "reports/text_format.h"

namespace kva {
namespace {

constexpr std::size_t kCitedRanges = 8;
constexpr std::size_t kNameBytes = 120;

double prefill_s(const TrialRow& row) { return row.timing.prefill_s; }
double token_time_s(const TrialRow& row) { return row.token_time(); }
double kl_mean(const TrialRow& row) { return row.quality.kl_mean; }
double top1_agreement(const TrialRow& row) { return row.quality.top1_agreement; }
double rouge_l(const TrialRow& row) { return row.quality.rouge_l; }
double judge_score(const TrialRow& row) { return row.judge.score; }

std::string change_text(double value) { return format_change(value); }
std::string nats_text(double value) { return format_significant(value); }
std::string rouge_text(double value) { return format_number(value, 3); }

// A question, its figure, and which strategies it is asked of.
struct Question {
  std::string title;
  std::string measure;  // "bytes held a token against Baseline's"
  SampleEstimate StrategyFigures::*figure;
  std::string (*text)(double);
  bool more_is_better = false;
  // Whether Baseline takes part, whose change is 0 by definition.
  bool with_baseline = false;
  std::function<bool(const StrategyFigures&)> asked_of;
};

struct Answer {
  const StrategyFigures* figures;
  Estimate estimate;
  int64_t samples;
};

std::string name_of(const StrategyFigures& figures) { return one_line(figures.group->strategy, kNameBytes); }

std::string samples_text(int64_t samples) {
  return fmt::format("{} sample{}", samples, samples == 1 ? "" : "s");
}

std::string interval_text(const Question& question, const Answer& answer) {
  if (std::isnan(answer.estimate.low)) return question.text(answer.estimate.value) + ", no interval";
  return fmt::format("{} [{}, {}]", question.text(answer.estimate.value), question.text(answer.estimate.low),
                     question.text(answer.estimate.high));
}

bool overlap(const Estimate& a, const Estimate& b) { return a.low <= b.high && b.low <= a.high; }

// The strategies that the question is asked of, the best first.
std::vector<Answer> answers_to(const Question& question, const std::vector<StrategyFigures>& figures) {
  std::vector<Answer> answers;
  for (const StrategyFigures& one : figures) {
    if (one.group->baseline) {
      if (question.with_baseline)
        answers.push_back({&one, {0.0, 0.0, 0.0}, static_cast<int64_t>(one.group->trials.size())});
      continue;
    }
    const SampleEstimate& estimate = one.*question.figure;
    if (!question.asked_of(one) || std::isnan(estimate.value.value)) continue;
    answers.push_back({&one, estimate.value, estimate.samples});
  }
  std::stable_sort(answers.begin(), answers.end(), [&](const Answer& a, const Answer& b) {
    return question.more_is_better ? a.estimate.value > b.estimate.value
                                   : a.estimate.value < b.estimate.value;
  });
  return answers;
}

std::string cited(const Question& question, const Answer& answer) {
  return fmt::format("{} ({} on {}, {})", name_of(*answer.figures), interval_text(question, answer),
                     samples_text(answer.samples), cited_lines(*answer.figures->group));
}

std::string withheld_sentence(const Question& question, const std::vector<Answer>& answers,
                              const std::vector<const Answer*>& overlapping) {
  std::string names;
  for (std::size_t i = 0; i < overlapping.size() && i < 3; ++i)
    names += (i > 0 ? "; " : "") + cited(question, *overlapping[i]);
  if (overlapping.size() > 3) names += fmt::format("; and {} more", overlapping.size() - 3);
  return fmt::format("Withheld: in {}, the interval of {} overlaps with that of {}.", question.measure,
                     cited(question, answers.front()), names);
}

Recommendation answer(const Question& question, const std::vector<StrategyFigures>& figures) {
  Recommendation result{question.title, "", ""};
  const auto answers = answers_to(question, figures);
  const auto without_interval = std::find_if(answers.begin(), answers.end(),
                                             [](const Answer& one) { return std::isnan(one.estimate.low); });
  if (answers.empty()) {
    result.sentence = "Withheld: no strategy of this run has the figures.";
  } else if (without_interval != answers.end()) {
    result.sentence = fmt::format("Withheld: {} was measured on {}, and under {} there is no interval.",
                                  name_of(*without_interval->figures),
                                  samples_text(without_interval->samples), BlockBootstrap::kMinBlocks);
  } else if (answers.size() == 1) {
    result.sentence = fmt::format("Withheld: {} is the only strategy to be asked, nothing stands beside it.",
                                  cited(question, answers.front()));
  } else {
    std::vector<const Answer*> overlapping;
    for (std::size_t i = 1; i < answers.size(); ++i)
      if (overlap(answers.front().estimate, answers[i].estimate)) overlapping.push_back(&answers[i]);
    if (!overlapping.empty()) {
      result.sentence = withheld_sentence(question, answers, overlapping);
    } else if (answers.front().figures->group->baseline) {
      result.strategy = answers.front().figures->group->strategy;
      result.sentence =
          fmt::format("{}: in {}, no strategy is better, the next being {}.",
                      name_of(*answers.front().figures), question.measure, cited(question, answers[1]));
    } else {
      result.strategy = answers.front().figures->group->strategy;
      result.sentence = fmt::format("{}: best in {}; the next is {}.", cited(question, answers.front()),
                                    question.measure, cited(question, answers[1]));
    }
  }
  return result;
}

// Of the bytes held: the upper bound, where there is one.
double most_change(const StrategyFigures& figures) {
  const Estimate& change = figures.bytes_change.value;
  return std::isnan(change.high) ? change.value : change.high;
}

bool holds_at_most(const StrategyFigures& figures, double share) { return most_change(figures) <= share - 1; }

// Quality among strategies that hold at most so much; thresholds that let the same strategies pass are asked
// once, at the lowest.
std::vector<double> byte_classes(const std::vector<StrategyFigures>& figures) {
  std::vector<double> classes;
  std::size_t last = 0;
  for (const double share : {0.25, 0.5, 0.75, 0.95}) {
    const auto passing = static_cast<std::size_t>(std::count_if(
        figures.begin(), figures.end(),
        [&](const StrategyFigures& one) { return !one.group->baseline && holds_at_most(one, share); }));
    if (passing > last) classes.push_back(share);
    last = passing;
  }
  return classes;
}

}  // namespace

std::string cited_lines(const TrialGroup& group) {
  std::vector<int64_t> lines;
  for (const TrialRow* row : group.trials) lines.push_back(row->line);
  std::sort(lines.begin(), lines.end());
  std::string text = lines.size() == 1 ? "line " : "lines ";
  std::size_t ranges = 0;
  for (std::size_t i = 0; i < lines.size();) {
    // Strategies often take turns, so that the lines of one are evenly apart.
    const int64_t step = i + 1 < lines.size() ? lines[i + 1] - lines[i] : 1;
    std::size_t last = i;
    while (last + 1 < lines.size() && lines[last + 1] - lines[last] == step) ++last;
    if (last < i + 2) last = step == 1 ? last : i;
    if (ranges++ == kCitedRanges) return text + fmt::format(" and {} more", lines.size() - i);
    text += fmt::format("{}{}", ranges == 1 ? "" : ", ", lines[i]);
    if (last > i) text += fmt::format("–{}", lines[last]);
    if (last > i && step > 1) text += fmt::format(" by {}", step);
    i = last + 1;
  }
  return text;
}

std::vector<StrategyFigures> strategy_figures(const std::vector<TrialGroup>& groups,
                                              const std::string& model) {
  const TrialGroup none;
  const TrialGroup* found = baseline_of(groups, model);
  const TrialGroup& base = found ? *found : none;
  std::vector<StrategyFigures> figures;
  for (const TrialGroup& group : groups) {
    if (group.model != model || group.trials.empty()) continue;
    figures.push_back({.group = &group,
                       .bytes_change = sample_change(group, base, token_bytes),
                       .prefill_change = sample_change(group, base, prefill_s),
                       .token_time_change = sample_change(group, base, token_time_s),
                       .kl_mean = sample_mean(group, kl_mean),
                       .log_perplexity = sample_mean(group, log_perplexity),
                       .top1_agreement = sample_mean(group, top1_agreement),
                       .rouge_l = sample_mean(group, rouge_l),
                       .judge_score = sample_mean(group, judge_score)});
  }
  return figures;
}

std::vector<Recommendation> recommendations(const std::vector<StrategyFigures>& figures) {
  const auto every = [](const StrategyFigures&) { return true; };
  std::vector<Question> questions;
  questions.push_back({"Smallest cache", "bytes held a token against Baseline's",
                       &StrategyFigures::bytes_change, change_text, false, true, every});
  for (const double share : byte_classes(figures)) {
    const auto small = [share](const StrategyFigures& one) { return holds_at_most(one, share); };
    questions.push_back({fmt::format("Least loss at {:.0f}% of the bytes or less", 100 * share),
                         "mean KL against Baseline (nats a token)", &StrategyFigures::kl_mean, nats_text,
                         false, false, small});
  }
  const auto saves = [](const StrategyFigures& one) { return most_change(one) < 0; };
  questions.push_back({"Nearest to Baseline's text while saving bytes", "ROUGE-L against Baseline's text",
                       &StrategyFigures::rouge_l, rouge_text, true, false, saves});
  questions.push_back({"Fastest generation", "time a generated token against Baseline's",
                       &StrategyFigures::token_time_change, change_text, false, true, every});
  std::vector<Recommendation> answers;
  answers.reserve(questions.size());
  for (const Question& question : questions) answers.push_back(answer(question, figures));
  return answers;
}

}  // namespace kva
