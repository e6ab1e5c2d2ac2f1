#include "reports/strategy_comparison.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "reports/dashboard_forms.h"
#include "reports/text_format.h"

namespace kva {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

TrialRow trial(const std::string& strategy, int sample, double bytes, double kl, double token_s) {
  TrialRow row;
  row.trial = strategy + std::to_string(sample);
  row.model = "m";
  row.strategy = strategy;
  row.prompt_set = "p";
  row.sample = std::to_string(sample);
  row.ok = true;
  row.ledger = {bytes, 0, 0, 0, 0, 0, bytes};
  row.quality.kl_mean = kl;
  row.quality.rouge_l = 1 - kl;
  row.prompt_tokens = 90;
  row.generated_tokens = 10;
  row.timing.generation_s = 10 * token_s;
  return row;
}

// Samples s = 0, 1, ...: bytes, KL and times that differ by sample in the same way for all strategies.
std::vector<TrialRow> run(int samples,
                          const std::vector<std::pair<std::string, std::array<double, 3>>>& strategies) {
  std::vector<TrialRow> rows;
  for (int sample = 0; sample < samples; ++sample)
    for (const auto& [name, figures] : strategies) {
      const double wobble = 1 + 0.1 * std::sin(sample);
      rows.push_back(trial(name, sample, 1000 * (sample + 1) * figures[0], figures[1] * wobble,
                           figures[2] * wobble * (sample + 1)));
      rows.back().line = static_cast<int64_t>(rows.size());
    }
  return rows;
}

const Recommendation& asked(const std::vector<Recommendation>& all, const std::string& question) {
  for (const Recommendation& one : all)
    if (one.question.find(question) != std::string::npos) return one;
  ADD_FAILURE() << question;
  return all.front();
}

TEST(TrialStatistics, PairsSamplesAndAveragesRepeats) {
  auto rows = run(2, {{"Baseline", {1, 0, 1}}, {"A", {0.5, 0.1, 1}}});
  // A third run of A's first sample that holds as much as Baseline: its sample counts once, 0.75 of Baseline.
  rows.push_back(rows[1]);
  rows.back().repeat = 1;
  rows.back().ledger.payload = 1000;
  // A sample that only A has says nothing against Baseline.
  rows.push_back(trial("A", 7, 1, 0.1, 1));
  const auto groups = group_trials(rows);
  ASSERT_EQ(groups.size(), 2U);
  EXPECT_TRUE(groups[0].baseline);
  const SampleEstimate change = sample_change(groups[1], groups[0], held_bytes);
  EXPECT_EQ(change.samples, 2);
  EXPECT_DOUBLE_EQ(change.value.value, (-0.25 + -0.5) / 2);
  EXPECT_TRUE(std::isnan(change.value.low));  // of two samples
}

TEST(TrialStatistics, MeanSeriesInterpolatesWhereHalfOfTheTrialsReach) {
  std::vector<TrialRow> rows = run(3, {{"A", {1, 0, 1}}});
  for (std::size_t i = 0; i < 3; ++i) {
    rows[i].steps.tokens = {0, 10};
    rows[i].steps.bytes = {0, 100};
  }
  rows[2].steps.tokens = {0, 20};
  rows[2].steps.bytes = {0, 400};
  const auto tokens = [](const TrialRow& row) -> const std::vector<double>& { return row.steps.tokens; };
  const auto bytes = [](const TrialRow& row) -> const std::vector<double>& { return row.steps.bytes; };
  const MeanSeries mean = mean_series(group_trials(rows)[0], tokens, bytes, 5);
  EXPECT_THAT(mean.x, ElementsAre(0, 5, 10));
  EXPECT_THAT(mean.y, ElementsAre(0, (50 + 50 + 100) / 3.0, (100 + 100 + 200) / 3.0));
}

// A strategy whose answers are half as long holds less, and saves nothing.
TEST(TrialStatistics, BytesAreComparedForEachTokenSeen) {
  auto rows = run(2, {{"Baseline", {1, 0, 1}}, {"A", {0.6, 0.1, 1}}});
  for (TrialRow& row : rows)
    if (row.strategy == "A") row.prompt_tokens = 50;  // 60 tokens where Baseline saw 100
  const auto figures = strategy_figures(group_trials(rows), "m");
  EXPECT_NEAR(figures.at(1).bytes_change.value.value, 0.0, 1e-12);
  for (TrialRow& row : rows) row.steps.tokens = {7, 50};  // where steps are known they say it
  EXPECT_NEAR(strategy_figures(group_trials(rows), "m").at(1).bytes_change.value.value, -0.4, 1e-12);
}

TEST(TrialStatistics, WorstTrialsLoseMost) {
  auto rows = run(3, {{"Baseline", {1, 9, 1}}, {"A", {0.5, 0.1, 1}}, {"B", {0.5, 0.4, 1}}});
  rows[4].ok = false;
  rows[7].quality.kl_mean = kUnknown;
  const auto worst = worst_trials(rows, "m", 3);
  ASSERT_EQ(worst.size(), 3u);
  for (const TrialRow* row : worst) EXPECT_EQ(row->strategy, "B");
  EXPECT_GT(worst[0]->quality.kl_mean, worst[1]->quality.kl_mean);
  EXPECT_EQ(worst_trials(rows, "m", 10).size(), 4u) << "no Baseline, nothing that failed or was not scored";
  EXPECT_TRUE(worst_trials(rows, "other", 3).empty());
  const TrialRows trials{rows, {}};
  EXPECT_THAT(comparison_markdown(trials, {}), HasSubstr("### Worst samples"));
}

TEST(Recommendations, AreGivenWhereIntervalsDoNotOverlap) {
  const auto rows =
      run(12, {{"Baseline", {1, 0, 1}}, {"Small", {0.3, 0.5, 1.2}}, {"Good", {0.45, 0.05, 0.8}}});
  const auto groups = group_trials(rows);
  const auto all = recommendations(strategy_figures(groups, "m"));
  EXPECT_EQ(asked(all, "Smallest").strategy, "Small");
  EXPECT_THAT(asked(all, "Smallest").sentence, HasSubstr("lines 2–35 by 3"));
  EXPECT_EQ(asked(all, "Least loss at 50%").strategy, "Good");
  EXPECT_EQ(asked(all, "Nearest").strategy, "Good");
  EXPECT_EQ(asked(all, "Fastest").strategy, "Good");
  EXPECT_THAT(asked(all, "Fastest").sentence, HasSubstr("-20.00% ["));
}

TEST(Recommendations, AreWithheldWhereIntervalsOverlap) {
  const auto rows = run(12, {{"Baseline", {1, 0, 1}}, {"A", {0.5, 0.100, 1.0}}, {"B", {0.5, 0.101, 1.0}}});
  const auto groups = group_trials(rows);
  const auto all = recommendations(strategy_figures(groups, "m"));
  for (const char* question : {"Smallest", "Least loss", "Nearest", "Fastest"}) {
    EXPECT_EQ(asked(all, question).strategy, "") << question;
    EXPECT_THAT(asked(all, question).sentence, HasSubstr("Withheld")) << question;
  }
  EXPECT_THAT(asked(all, "Least loss").sentence, HasSubstr("overlaps with that of B"));
}

TEST(Recommendations, AreWithheldOnFewSamplesAndOfOneStrategy) {
  const auto few = run(7, {{"Baseline", {1, 0, 1}}, {"A", {0.5, 0.1, 1}}, {"B", {0.2, 0.2, 1}}});
  EXPECT_THAT(asked(recommendations(strategy_figures(group_trials(few), "m")), "Smallest").sentence,
              HasSubstr("under 8 there is no interval"));
  const auto single = run(12, {{"Baseline", {1, 0, 1}}, {"A", {0.5, 0.1, 1}}});
  const auto groups = group_trials(single);
  EXPECT_THAT(asked(recommendations(strategy_figures(groups, "m")), "Least loss").sentence,
              HasSubstr("only strategy"));
}

TEST(Recommendations, NameBaselineWhereItIsTheBest) {
  const auto rows = run(12, {{"Baseline", {1, 0, 1}}, {"A", {0.5, 0.1, 1.5}}, {"B", {0.4, 0.1, 1.3}}});
  const auto groups = group_trials(rows);
  const auto all = recommendations(strategy_figures(groups, "m"));
  EXPECT_EQ(asked(all, "Fastest").strategy, "Baseline");
}

TEST(ComparisonMarkdown, EscapesWhatTheFileSays) {
  TrialRows trials;
  trials.rows = run(9, {{"Baseline", {1, 0, 1}}, {"<b>|x|</b> [y](http://z)", {0.5, 0.1, 1}}});
  trials.rows[3].ok = false;
  trials.rows[3].error = "bad `|` <script>";
  const std::string text = comparison_markdown(trials, {});
  EXPECT_THAT(text, Not(HasSubstr("<b>")));
  EXPECT_THAT(text, Not(HasSubstr("<script>")));
  EXPECT_THAT(text, Not(HasSubstr("[y](http")));
  EXPECT_THAT(text, HasSubstr("## Failed trials"));
}

TEST(DashboardCsv, QuotesAndDefusesTexts) {
  auto rows = run(1, {{"=HYPERLINK(\"x\"),\n", {0.5, 0.1, 1}}});
  const std::string csv = dashboard_csv(rows);
  EXPECT_THAT(csv, HasSubstr("\"'=HYPERLINK(\"\"x\"\"),\n\""));
  EXPECT_THAT(csv, HasSubstr(",500,500,0,0,0,0,0,500,"));
}

}  // namespace
}  // namespace kva
