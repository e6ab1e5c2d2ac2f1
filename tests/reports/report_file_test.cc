#include "reports/report_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "reports/gnuplot.h"
#include "reports/markdown_report.h"
#include "runtime/error.h"
#include "runtime/io/file.h"
#include "tests/reports/example_report.h"

namespace kva {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;
using testing::HasSubstr;
using testing::Not;

class ReportFile : public testing::Test {
 protected:
  void SetUp() override {
    const std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    root_ = fs::temp_directory_path() / ("kvanalyze-report-" + std::to_string(::getpid()) + "-" + name);
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  std::string path(const std::string& name) const { return (root_ / name).string(); }
  std::string read(const std::string& name) const { return read_text_file(path(name), int64_t{1} << 30); }
  std::string refusal(const std::string& text) const {
    write_text_file(path("given.json"), text);
    try {
      load_report(path("given.json"));
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  }
  std::string plotly() const {
    write_text_file(path("plotly.js"), "/**\n* plotly.js v0.0.0\n*/\nvar Plotly = {};");
    return path("plotly.js");
  }

  fs::path root_;
};

TEST_F(ReportFile, RoundTripKeepsTheReportAndRendersTheSameBytesAgain) {
  const ordered_json report = example_report();
  write_report(report, path("a"), {.plotly_path = plotly()});
  const ordered_json loaded = load_report(path("a/report.json"));
  EXPECT_EQ(loaded, report);
  write_report(loaded, path("b"), {.plotly_path = plotly()});
  std::size_t files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(path("a"))) {
    if (!entry.is_regular_file()) continue;
    const std::string name = fs::relative(entry.path(), path("a")).string();
    EXPECT_EQ(read("a/" + name), read("b/" + name)) << name;
    ++files;
  }
  EXPECT_GE(files, gnuplot_available() ? 13U : 3U);
}

TEST_F(ReportFile, EveryPlotIsThereAndMarkdownLinksToIt) {
  if (!gnuplot_available()) GTEST_SKIP() << "gnuplot is not installed";
  EXPECT_THAT(write_report(example_report(), path("r"), {.plotly_path = plotly()}), testing::IsEmpty());
  const std::string markdown = read("r/report.md");
  for (const char* name :
       {"similarity_distribution", "layer_similarity", "compression_opportunities", "heatmap_layer_00",
        "heatmap_layer_03", "cross_layer", "growth", "set_comparison"}) {
    const std::string file = std::string("plots/") + name + ".png";
    EXPECT_GT(read("r/" + file).size(), 10000U) << file;
    EXPECT_EQ(read("r/" + file).substr(1, 3), "PNG") << file;
    EXPECT_THAT(markdown, HasSubstr(file));
  }
}

TEST_F(ReportFile, WithoutPlotsOldOnesGoAndForeignFilesStay) {
  write_report(example_report(), path("r"),
               {.plotly_path = plotly(), .extra_files = {{"partners.csv", "1,2\n"}}});
  write_text_file(path("r/notes.txt"), "mine");
  fs::create_directories(path("r/plots"));
  write_text_file(path("r/plots/mine.png"), "mine too");
  write_report(example_report(), path("r"), {.plots = false, .plotly_path = plotly()});
  EXPECT_EQ(read("r/notes.txt"), "mine");
  EXPECT_EQ(read("r/partners.csv"), "1,2\n");
  EXPECT_EQ(read("r/plots/mine.png"), "mine too");
  EXPECT_FALSE(fs::exists(path("r/plots/growth.png")));
  EXPECT_THAT(read("r/report.md"), Not(HasSubstr("plots/growth.png")));
  std::size_t entries = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(path("r"))) ++entries;
  EXPECT_EQ(entries, 6U) << "nothing else is left behind";
}

TEST_F(ReportFile, AFailureLeavesTheOldReport) {
  write_report(example_report(), path("r"), {.plots = false, .plotly_path = plotly()});
  const std::string before = read("r/report.html");
  EXPECT_THROW(write_report(example_report(), path("r"), {.plots = false, .plotly_path = path("nowhere.js")}),
               InputError);
  ordered_json broken = example_report();
  broken["model"]["layers"] = "four";
  EXPECT_THROW(write_report(broken, path("r"), {.plots = false}), std::logic_error);
  EXPECT_EQ(read("r/report.html"), before);
  EXPECT_THROW(write_report(broken, path("new"), {.plots = false}), std::logic_error);
  EXPECT_FALSE(fs::exists(path("new")));
  EXPECT_THROW(write_report(example_report(), path("plotly.js"), {.plots = false, .plotly_path = plotly()}),
               InputError);
}

TEST_F(ReportFile, RefusesWhatIsNoReport) {
  EXPECT_THAT(refusal(""), HasSubstr("given.json"));
  EXPECT_THAT(refusal("[]"), HasSubstr("no report of kvanalyze"));
  EXPECT_THAT(refusal("{\"schema\": \"kvanalyze.report\"}"), HasSubstr("schema_version"));
  EXPECT_THAT(refusal("{\"schema\": \"kvanalyze.report\", \"schema_version\": 99}"),
              HasSubstr("newer kvanalyze"));
  EXPECT_THAT(refusal(std::string(5000, '[')), HasSubstr("nested deeper"));
  EXPECT_THAT(refusal("{\"schema\": \"\xff\"}"), HasSubstr("not valid JSON"));
  std::string many = "{\"m0\": 0";
  for (int i = 1; i < 5000; ++i) many += ", \"m" + std::to_string(i) + "\": 0";
  EXPECT_THAT(refusal(many + "}"), HasSubstr("more than 4096 members"));
}

TEST_F(ReportFile, RefusesShapesThatDoNotFitTogether) {
  const auto refused = [&](const std::function<void(ordered_json&)>& change) {
    ordered_json report = example_report();
    change(report);
    return refusal(report.dump());
  };
  EXPECT_THAT(refused([](ordered_json& r) { r["similarity"][0]["histogram"].push_back(1); }),
              HasSubstr("similarity[0].histogram"));
  EXPECT_THAT(refused([](ordered_json& r) { r["layer_matrix"][1]["values"][2].push_back(0.5); }),
              HasSubstr("layer_matrix[1].values"));
  EXPECT_THAT(refused([](ordered_json& r) { r["heatmaps"][2]["data"] = "AAAA"; }),
              HasSubstr("heatmaps[2].data"));
  EXPECT_THAT(refused([](ordered_json& r) { r["heatmaps"][2]["data"] = "not base64"; }),
              HasSubstr("heatmaps[2].data"));
  EXPECT_THAT(refused([](ordered_json& r) { r["heatmaps"][0]["layer"] = 4; }),
              HasSubstr("heatmaps[0].layer"));
  EXPECT_THAT(refused([](ordered_json& r) { r["growth"][0]["shuffled"].erase(0); }),
              HasSubstr("growth[0].shuffled"));
}

TEST_F(ReportFile, NamesOfStrangersDoNothing) {
  const std::string marker = path("pwned");
  write_report(hostile_report(marker.c_str()), path("r"), {.plotly_path = plotly()});
  EXPECT_FALSE(fs::exists(marker)) << "gnuplot ran a name";
  const std::string html = read("r/report.html");
  EXPECT_THAT(html, Not(HasSubstr("<img src=x")));
  EXPECT_THAT(html, Not(HasSubstr("<script>window.pwned")));
  const std::string markdown = read("r/report.md");
  EXPECT_THAT(markdown, Not(HasSubstr("<img src=x")));
  EXPECT_THAT(markdown, Not(HasSubstr("[x](")));
  EXPECT_THAT(markdown, Not(HasSubstr("\x1b")));
  EXPECT_EQ(fs::exists(path("r/plots/set_comparison.png")), gnuplot_available());
}

TEST_F(ReportFile, SmallReportsAreDrawnToo) {
  ordered_json report = example_report({.layers = 1, .kv_heads = 1, .rope = false});
  for (const char* empty : {"adjacent_layers", "set_differences", "heatmaps", "clusters", "growth"})
    report[empty] = ordered_json::array();
  EXPECT_NO_THROW(write_report(report, path("r"), {.plotly_path = plotly()}));
  for (const char* empty :
       {"similarity", "opportunity", "duplicates", "norms", "layer_matrix", "sets", "prompts", "thresholds"})
    report[empty] = ordered_json::array();
  EXPECT_NO_THROW(write_report(report, path("s"), {.plotly_path = plotly()}));
  EXPECT_THAT(read("s/report.html"), HasSubstr("synthetic-example"));
}

}  // namespace
}  // namespace kva
