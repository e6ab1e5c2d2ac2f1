// The written forms of an A/B report.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "reports/ab_findings.h"
#include "reports/ab_scales.h"
#include "reports/ab_tables.h"
#include "reports/gnuplot.h"
#include "reports/html_report.h"
#include "reports/label_layout.h"
#include "reports/report_file.h"
#include "reports/terminal_summary.h"
#include "runtime/error.h"
#include "runtime/io/file.h"
#include "tests/error_of.h"
#include "tests/reports/example_report.h"

namespace kva {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;
using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::Not;

std::vector<std::string> sentences(const ordered_json& report) {
  std::vector<std::string> all;
  for (const Finding& finding : ab_findings(report)) all.push_back(finding.sentence);
  return all;
}

std::vector<std::string> sections(const std::string& markdown) {
  std::vector<std::string> titles;
  for (std::size_t at = 0; (at = markdown.find("\n## ", at)) != std::string::npos; ++at)
    titles.push_back(markdown.substr(at + 4, markdown.find('\n', at + 1) - at - 4));
  return titles;
}

class AbForms : public testing::Test {
 protected:
  void SetUp() override {
    const std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    root_ = fs::temp_directory_path() / ("kvanalyze-ab-" + std::to_string(::getpid()) + "-" + name);
    fs::create_directories(root_);
    write_text_file(path("plotly.js"), "/**\n* plotly.js v0.0.0\n*/\nvar Plotly = {};");
  }
  void TearDown() override { fs::remove_all(root_); }
  std::string path(const std::string& name) const { return (root_ / name).string(); }
  std::string read(const std::string& name) const { return read_text_file(path(name), int64_t{1} << 30); }

  fs::path root_;
};

TEST_F(AbForms, EveryFormIsThereAndRendersTheSameBytesAgain) {
  const ordered_json report = example_ab_report();
  EXPECT_THAT(
      write_report(report, path("a"), {.plots = gnuplot_available(), .plotly_path = path("plotly.js")}),
      testing::IsEmpty());
  const ordered_json loaded = load_report(path("a/report.json"));
  EXPECT_EQ(loaded, report);
  write_report(loaded, path("b"), {.plots = gnuplot_available(), .plotly_path = path("plotly.js")});
  for (const char* name : {"report.html", "report.md", "report.json"})
    EXPECT_EQ(read(std::string("a/") + name), read(std::string("b/") + name)) << name;
  EXPECT_THAT(read("a/report.html"), HasSubstr("KV-cache recipes on synthetic-example"));
  if (!gnuplot_available()) GTEST_SKIP() << "gnuplot is not installed";
  for (const char* name :
       {"quality_front", "kl_by_position", "bytes_by_recipe", "layer_bytes", "layer_error", "passkey"}) {
    const std::string file = std::string("plots/") + name + ".png";
    EXPECT_GT(read("a/" + file).size(), 10000U) << file;
    EXPECT_EQ(read("a/" + file), read("b/" + file)) << file;
    EXPECT_THAT(read("a/report.md"), HasSubstr(file));
  }
}

TEST_F(AbForms, ARedundancyReportCanEndWithRecipes) {
  const ordered_json report = example_judged_report();
  write_report(report, path("a"), {.plots = gnuplot_available(), .plotly_path = path("plotly.js")});
  EXPECT_EQ(load_report(path("a/report.json")), report);
  const std::string recipe = "quant(k=4,v=4";
  for (const char* name : {"a/report.html", "a/report.md"})
    EXPECT_THAT(read(name),
                AllOf(HasSubstr("What compressing these pages saves and costs"), HasSubstr(recipe)));
  EXPECT_THAT(read("a/report.html"), HasSubstr("data-chart=\"front\""));
  EXPECT_THAT(terminal_summary(report, false, 120),
              AllOf(HasSubstr("Compressed inside the decoder"), HasSubstr(recipe)));
  if (gnuplot_available()) {
    EXPECT_GT(read("a/plots/quality_front.png").size(), 10000U);
  }
}

TEST_F(AbForms, WithoutPlotlyThePicturesAreInThePage) {
  if (!gnuplot_available()) GTEST_SKIP() << "gnuplot is not installed";
  PlotSet plots{{{"quality_front.png", "Quality", "caption"}}, {}};
  const std::string html = html_report(example_ab_report(), plots, {{"quality_front.png", "bytes"}}, "");
  EXPECT_THAT(html, AllOf(HasSubstr("data:image/png;base64,Ynl0ZXM="), HasSubstr("fetch_plotly.py"),
                          Not(HasSubstr("data-chart"))));
}

TEST_F(AbForms, NamesOfStrangersDoNothing) {
  const std::string marker = path("pwned");
  const auto notes =
      write_report(hostile_ab_report(marker.c_str()), path("r"), {.plotly_path = path("plotly.js")});
  EXPECT_FALSE(fs::exists(marker)) << "gnuplot ran a name";
  if (gnuplot_available()) {
    EXPECT_THAT(notes, testing::IsEmpty());
  }
  EXPECT_THAT(read("r/report.html"),
              AllOf(Not(HasSubstr("<img src=x")), Not(HasSubstr("<script>window.pwned"))));
  EXPECT_THAT(read("r/report.md"),
              AllOf(Not(HasSubstr("<img src=x")), Not(HasSubstr("[x](")), Not(HasSubstr("\x1b"))));
  EXPECT_THAT(terminal_summary(hostile_ab_report(), false, 120), Not(HasSubstr("\x1b")));
  EXPECT_EQ(page_data(hostile_ab_report()).find('<'), std::string::npos);
}

TEST_F(AbForms, OneRowAndEmptyTablesAreDrawnToo) {
  ordered_json report = example_ab_report(1);
  ordered_json& ab = report["ab"];
  for (ordered_json* rows : {&ab["rows"], &ab["passkey"]["rows"]})
    rows->erase(rows->begin() + 1, rows->end());
  for (const char* empty : {"noise_floor", "differences", "equal_bytes"}) ab[empty] = ordered_json::array();
  ordered_json& row = ab["rows"][0];
  EXPECT_NO_THROW(write_report(report, path("one"), {.plotly_path = path("plotly.js")}));
  for (const char* empty : {"layers", "kl_by_position"}) row[empty] = ordered_json::array();
  row["capacity"]["budgets"] = ordered_json::array();
  for (const char* null : {"kl_mean", "delta_perplexity", "timing"}) row[null] = nullptr;
  for (const char* zero : {"dense_f16_bytes", "bytes_held", "bits_per_value"}) row[zero] = 0;
  for (ordered_json& part : row["ledger"]) part = 0;
  EXPECT_NO_THROW(write_report(report, path("none"), {.plotly_path = path("plotly.js")}));
  EXPECT_THAT(read("none/report.html"), HasSubstr("dense(f16)"));
}

TEST_F(AbForms, TheWorstWindowsOfEachRecipeAreShown) {
  ordered_json report = example_ab_report();
  ordered_json& row = report["ab"]["rows"][1];
  const ordered_json window = row["windows"][0];
  row["windows"] = ordered_json::array();
  for (const double kl : {0.3, 0.1, 0.5, 0.2}) {
    row["windows"].push_back(window);
    row["windows"].back()["kl_mean"] = kl;
  }
  report["ab"]["rows"][2]["windows"] = {window};
  for (std::size_t i = 3; i < report["ab"]["rows"].size(); ++i)
    report["ab"]["rows"][i]["windows"] = {{{"tokens", 5}, {"bytes_held", 6}}};  // as older versions wrote it
  check_report(report, "report");
  const Table table = ab_window_table(report);
  ASSERT_EQ(table.rows.size(), 3u) << "nothing of the baseline and of single windows";
  std::vector<std::string> numbers;
  for (const auto& cells : table.rows) {
    EXPECT_EQ(cells[0].text, row["recipe"]);
    numbers.push_back(cells[1].text);
  }
  EXPECT_THAT(numbers, testing::ElementsAre("3", "1", "4"));
}

TEST_F(AbForms, MoreRecipesThanAPictureShowsAreCounted) {
  ordered_json report = example_ab_report();
  for (ordered_json* rows : {&report["ab"]["rows"], &report["ab"]["passkey"]["rows"]})
    while (rows->size() < 70) rows->push_back((*rows)[2]);
  EXPECT_NO_THROW(write_report(report, path("r"), {.plotly_path = path("plotly.js")}));
  EXPECT_EQ(ordered_json::parse(page_data(report))["rows"].size(), 40U);
  EXPECT_THAT(sentences(report), Contains(HasSubstr("more recipes are in the table")));
}

TEST(AbFindings, SayGainAndCostAndClaimNothingWithinIntervals) {
  const auto all = sentences(example_ab_report());
  EXPECT_THAT(all,
              Contains(AllOf(HasSubstr("quant(k=8,v=8) holds"), HasSubstr("47.6% less than the baseline"),
                             HasSubstr("0.0012 [0.00096, 0.00144]"), HasSubstr("no change shown"))));
  EXPECT_THAT(all, Contains(AllOf(HasSubstr("quant(k=2,v=2) holds"), Not(HasSubstr("no change shown")))));
  EXPECT_THAT(all, Contains(AllOf(HasSubstr("dense(f32) holds"), HasSubstr("more than the baseline"))));
  EXPECT_THAT(all, Contains(AllOf(HasSubstr("No effect"), HasSubstr("dedup(exact)"))));
  EXPECT_THAT(all, Contains(AllOf(HasSubstr("quant(k=8,v=8) saves most"), HasSubstr("1.86×"))));
  EXPECT_THAT(all, Contains(AllOf(HasSubstr("lowrank"), HasSubstr("At 512 tokens"))));
  // Equal bytes: one difference, one withheld, and none against a recipe that does nothing.
  EXPECT_THAT(all, Contains(AllOf(HasSubstr("quant(k=4,v=4) has a lower mean KL than lowrank(rank=#)"),
                                  HasSubstr("-0.4 [-0.41, -0.39]"))));
  EXPECT_THAT(
      all, Contains(AllOf(HasSubstr("no difference of mean KL"), HasSubstr("outliers=0.01) beside quant"))));
  EXPECT_THAT(all, Each(Not(HasSubstr("than dedup(exact)"))));
}

TEST(AbFindings, NoRecipeIsCloseEnoughWhenItsIntervalReachesFurther) {
  ordered_json report = example_ab_report();
  for (ordered_json& row : report["ab"]["rows"]) row["intervals"]["delta_perplexity"][1] = 0.011;
  EXPECT_THAT(sentences(report), Contains(HasSubstr("No recipe here saves bytes")));
}

TEST(AbFindings, NothingIsCloseEnoughOrNotWithoutIntervals) {
  ordered_json report = example_ab_report();
  for (ordered_json& row : report["ab"]["rows"]) row["intervals"]["delta_perplexity"] = {nullptr, nullptr};
  EXPECT_THAT(sentences(report), AllOf(Contains(HasSubstr("Too few tokens were scored for intervals")),
                                       Each(Not(HasSubstr("No recipe here saves bytes")))));
}

// A report of a version that measured neither.
TEST_F(AbForms, WithoutPasskeyAndLayerErrorsTheRestIsThere) {
  ordered_json report = example_ab_report();
  report["ab"].erase("passkey");
  for (ordered_json& row : report["ab"]["rows"]) {
    for (const char* member : {"layer_error", "passkey_accuracy"}) row.erase(member);
    for (const char* member : {"counters", "observe_seconds"}) row["codec"].erase(member);
  }
  EXPECT_NO_THROW(write_report(report, path("old"), {.plotly_path = path("plotly.js")}));
  EXPECT_EQ(load_report(path("old/report.json")), report);
  EXPECT_THAT(sections(read("old/report.md")),
              AllOf(Contains("Recipes side by side"), Not(Contains("Passkey retrieval")),
                    Not(Contains("Error of the layers"))));
  report["ab"]["passkey"] = nullptr;
  EXPECT_NO_THROW(write_report(report, path("null"), {.plotly_path = path("plotly.js")}));
}

TEST_F(AbForms, PasskeysOfOtherShapesAreRefused) {
  const auto refusal = [&](const std::function<void(ordered_json&)>& damage) {
    ordered_json report = example_ab_report();
    damage(report["ab"]["passkey"]);
    return error_of([&] { check_report(report, "report"); });
  };
  EXPECT_THAT(refusal([](ordered_json& passkey) { passkey["rows"].erase(3); }), HasSubstr("ab.passkey.rows"));
  EXPECT_THAT(refusal([](ordered_json& passkey) { passkey["cells"].erase(3); }),
              HasSubstr("ab.passkey.cells"));
  EXPECT_THAT(refusal([](ordered_json& passkey) { passkey["rows"][2]["cells"].erase(3); }),
              HasSubstr("ab.passkey.rows[2].cells"));
  EXPECT_THAT(refusal([](ordered_json& passkey) { passkey["base"]["cells"].erase(3); }),
              HasSubstr("ab.passkey.base.cells"));
}

TEST(AbFindings, PasskeysCountWhereTheBaseAnswers) {
  ordered_json report = example_ab_report();
  EXPECT_THAT(sentences(report), Contains(AllOf(HasSubstr("at the 10 of 15 lengths and depths"),
                                                HasSubstr("quant(k=2,v=2) 24.7%"))));
  report["ab"]["passkey"]["informative_cells"] = 0;
  EXPECT_THAT(sentences(report), Contains(HasSubstr("Passkey retrieval tells nothing of recipes here")));
}

TEST(AbTables, PasskeyCellsThatTellNothingAreInParentheses) {
  const Table table = ab_passkey_cell_table(example_ab_report());
  ASSERT_EQ(table.rows.size(), 9U * 3);
  ASSERT_EQ(table.columns.size(), 7U);
  EXPECT_EQ(table.rows[0][0].text, "dense(f32), the base");
  EXPECT_EQ(table.rows[0][2].text, "100.0%");
  EXPECT_EQ(table.rows[2][1].text, "2,048");
  EXPECT_EQ(table.rows[2][2].text, "(10.0%)");
}

TEST(AbTables, LayerErrorsSayTheWorstLayer) {
  ordered_json report = example_ab_report();
  report["ab"]["rows"][1]["layer_error"] = {
      {"k", {0.1, nullptr, 0.3, 0.2}}, {"v", {0.5, 0.4, 0.1, 0.2}}, {"missing", {0.5, 0.0, 0.0, 0.5}}};
  const auto& row = ab_layer_error_table(report).rows[1];
  EXPECT_EQ(row[1].text, "0.2");
  EXPECT_EQ(row[2].text, "0.3");
  EXPECT_EQ(row[3].text, "2");
  EXPECT_DOUBLE_EQ(row[4].sort, 0.3);
  EXPECT_EQ(row[6].text, "0");
  EXPECT_EQ(row[7].text, "25.00%");
}

TEST(AbTables, CountersOfMethodsAreInTheTable) {
  const Table table = ab_codec_table(example_ab_report());
  EXPECT_EQ(table.rows[0][9].text, "merge.merged_tokens 1,234");
}

TEST(AbTables, CapacityHoldsWhatTheJsonSays) {
  const Table table = ab_capacity_table(example_ab_report());
  ASSERT_EQ(table.rows.size(), 8U);
  ASSERT_EQ(table.columns.size(), 9U);
  EXPECT_EQ(table.columns[3].name, "tokens in 1 GiB");
  EXPECT_EQ(table.rows[0][3].sort, example_ab_report()["ab"]["rows"][0]["capacity"]["budgets"][0]["tokens"]);
}

TEST(AbScales, KlIsLogarithmicWithZeroAtItsLowerEnd) {
  const QualityScale scale = log_scale({0.001, 0.1, 0, NAN});
  EXPECT_DOUBLE_EQ(scale.at(0.01), -2);
  EXPECT_EQ(scale.at(0), scale.low);
  EXPECT_LT(scale.low, -3);
  EXPECT_EQ(scale.ticks.front(), (std::pair<double, std::string>{scale.low, "0"}));
  EXPECT_GT(scale.high, -1);
  EXPECT_TRUE(std::isnan(scale.at(NAN)));
  EXPECT_EQ(log_scale({0.001}).ticks.front().second, "0.0001");
  EXPECT_LE(log_scale({1e-300, 1e300}).ticks.size(), 12U);
}

TEST(AbScales, ChangesAreLinearUntilOneIsLarge) {
  const QualityScale small = change_scale({-0.001, 0.02});
  EXPECT_EQ(small.kind, QualityScale::Kind::kLinear);
  EXPECT_LT(small.low, -0.001);
  EXPECT_GT(small.high, 0.02);
  EXPECT_THAT(small.ticks, Contains(testing::Pair(testing::DoubleNear(0.01, 1e-12), "+1%")));
  const QualityScale large = change_scale({-0.001, 0.02, 13.0});
  EXPECT_EQ(large.at(0), 0);
  EXPECT_DOUBLE_EQ(large.at(0.5), -large.at(-0.5));
  EXPECT_NEAR(large.at(10) - large.at(1), std::log(10), 1e-3) << "logarithmic far from 0";
  EXPECT_THAT(large.ticks, Contains(testing::Pair(large.at(0.1), "+10%")));
  EXPECT_GT(change_scale({0, 0}).high, change_scale({0, 0}).low);
}

bool overlap(const LabelBox& a, const LabelBox& b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

TEST(LabelLayout, NearPointsKeepTheirNamesApart) {
  // Eight points in a heap, two of them the same.
  std::vector<LabelledPoint> points;
  for (int i = 0; i < 8; ++i) points.push_back({400.0 + 3 * (i % 4), 300.0 + 4 * (i / 4), 180, 18});
  points.push_back(points.front());
  const LabelBox area = {0, 0, 900, 600};
  const LabelBox line = {0, 318, 900, 322};
  const auto labels = place_labels(points, area, {line});
  ASSERT_EQ(labels.size(), points.size());
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const LabelBox& box = labels[i].box;
    EXPECT_TRUE(box.left >= 0 && box.top >= 0 && box.right <= 900 && box.bottom <= 600) << i;
    EXPECT_FALSE(overlap(box, line)) << i;
    for (std::size_t j = 0; j < i; ++j) EXPECT_FALSE(overlap(box, labels[j].box)) << i << " and " << j;
    for (const LabelledPoint& point : points)
      EXPECT_FALSE(overlap(box, {point.x - 5, point.y - 5, point.x + 5, point.y + 5})) << i;
    EXPECT_EQ(labels[i].joined,
              std::hypot(labels[i].line_x - points[i].x, labels[i].line_y - points[i].y) > 21.5)
        << i;
  }
}

TEST(LabelLayout, AtTheEdgeNamesTurnInwards) {
  const auto labels = place_labels({{890, 300, 120, 18}, {450, 300, 120, 18}}, {0, 0, 900, 600}, {});
  EXPECT_EQ(labels[0].side, -1);
  EXPECT_EQ(labels[1].side, 1);
  EXPECT_FALSE(labels[1].joined);
}

}  // namespace
}  // namespace kva
