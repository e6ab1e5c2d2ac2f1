#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "reports/findings.h"
#include "reports/html_report.h"
#include "reports/progress.h"
#include "reports/report_view.h"
#include "reports/tables.h"
#include "reports/terminal_summary.h"
#include "reports/text_format.h"
#include "tests/reports/example_report.h"

namespace kva {
namespace {

using testing::HasSubstr;
using testing::Not;

std::size_t columns(const std::string& line) {
  std::size_t count = 0;
  for (const char c : line) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
  return count;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

TEST(TextFormat, NumbersAsReadersSeeThem) {
  EXPECT_EQ(format_count(1234567), "1,234,567");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes(-2097152), "-2.00 MiB");
  EXPECT_EQ(format_share(0.1234), "12.3%");
  EXPECT_EQ(format_share(0.00001), "<0.1%") << "a rare event is no absent one";
  EXPECT_EQ(format_share(0), "0.0%");
  EXPECT_EQ(format_share(NAN), "–");
  EXPECT_EQ(format_number(-0.0001, 2), "0.00");
  EXPECT_EQ(format_seconds(3725), "1 h 2 min");
  EXPECT_EQ(format_rate(1234567), "1.23 M");
}

TEST(TextFormat, EscapesLeaveNothingToInterpret) {
  EXPECT_EQ(escape_html("<a b=\"c\">&'"), "&lt;a b=&quot;c&quot;&gt;&amp;&#39;");
  EXPECT_EQ(escape_markdown("a|b\n[x](y) <i> snake_case _em_"),
            "a\\|b \\[x\\](y) &lt;i&gt; snake_case \\_em\\_");
  EXPECT_EQ(quote_gnuplot("it's `x`\n"), "'it''s `x` '");
  EXPECT_EQ(escape_script_json("\"</script>\xE2\x80\xA8\""), "\"\\u003c/script\\u003e\\u2028\"");
  EXPECT_EQ(one_line("a\x1b[31m\xE2\x80\xAE b"), "a [31m  b");
  EXPECT_EQ(one_line("ééééé", 6), "ééé…");
}

TEST(TextFormat, Base64AgreesWithRfc4648AndRefusesOtherText) {
  for (const auto& [bytes, text] : std::vector<std::pair<std::string, std::string>>{{"", ""},
                                                                                    {"f", "Zg=="},
                                                                                    {"fo", "Zm8="},
                                                                                    {"foo", "Zm9v"},
                                                                                    {"foob", "Zm9vYg=="},
                                                                                    {"foobar", "Zm9vYmFy"}}) {
    EXPECT_EQ(base64_encode(bytes), text);
    std::string back;
    EXPECT_TRUE(base64_decode(text, back));
    EXPECT_EQ(back, bytes);
  }
  std::string ignored;
  for (const char* wrong : {"Zg", "Zg=", "Zh==", "Z!==", "====", "Zg==Zg=="})
    EXPECT_FALSE(base64_decode(wrong, ignored)) << wrong;
}

TEST(ReportView, SumsWhatACoverFrees) {
  Json report = example_report();
  report["opportunity"] = Json::array();
  for (const int layer : {0, 1})
    report["opportunity"].push_back({{"layer", layer},
                                     {"side", "V"},
                                     {"basis", nullptr},
                                     {"metric", "cosine"},
                                     {"threshold", 0.95},
                                     {"pages", 10},
                                     {"freed_pages", 3},
                                     {"freed_bytes", 300},
                                     {"dense_bytes", 1000},
                                     {"share", 0.3},
                                     {"shuffled_freed_pages", 1}});
  const Freed freed = freed_pages(report, stored_series(report), "cosine", 0.95);
  EXPECT_EQ(freed.bytes, 600);
  EXPECT_EQ(freed.dense_bytes, 2000);
  EXPECT_DOUBLE_EQ(freed.shuffled_bytes, 200);
  EXPECT_DOUBLE_EQ(freed.share(), 0.3);
  EXPECT_EQ(freed_pages(report, stored_series(report), "cosine", 0.95, 1).bytes, 300);
  EXPECT_EQ(freed_pages(report, stored_series(report), "cosine", 0.9).bytes, 0);
}

TEST(ReportView, KindsOfPagesStandWithTheStoredKeysFirst) {
  Json report = example_report();
  EXPECT_EQ(report_series(report)[0].label, "K after RoPE");
  EXPECT_EQ(report_series(report).size(), 3U);
  report["cache"]["key_basis"] = "plain";
  EXPECT_EQ(report_series(report)[0].label, "K before RoPE");
  EXPECT_EQ(stored_series(report).size(), 2U);
  const Json learned = example_report({.rope = false});
  ASSERT_EQ(report_series(learned).size(), 2U);
  EXPECT_EQ(report_series(learned)[0].label, "K");
}

TEST(Findings, SayTheControlBesideTheGain) {
  Json report = example_report();
  const auto gains = report_findings(report);
  EXPECT_THAT(gains[1].sentence, HasSubstr("shuffled tokens give"));
  EXPECT_THAT(gains[1].sentence, HasSubstr("because pages repeat"));
  for (Json& row : report["opportunity"]) row["shuffled_freed_pages"] = row["pages"];
  EXPECT_THAT(report_findings(report)[1].sentence, HasSubstr("not pages that repeat"));
}

TEST(Tables, MarkdownAndHtmlHoldTheSameRows) {
  const Table table = set_names(example_report()).empty() ? Table{} : sets_table(example_report());
  ASSERT_EQ(table.rows.size(), 3U);
  const std::string markdown = to_markdown(table);
  const std::string html = to_html(table);
  for (const auto& row : table.rows)
    for (const Cell& cell : row) {
      EXPECT_THAT(markdown, HasSubstr(escape_markdown(cell.text)));
      EXPECT_THAT(html, HasSubstr(escape_html(cell.text)));
    }
  EXPECT_EQ(lines_of(markdown).size(), 5U);
}

TEST(TerminalSummary, FitsTheScreenAndTellsTheStory) {
  for (const int width : {40, 80, 120}) {
    const std::string text = terminal_summary(example_report({.layers = 30}), false, width);
    EXPECT_THAT(text, Not(HasSubstr("\x1b"))) << "no colour was asked for";
    const auto lines = lines_of(text);
    EXPECT_LE(lines.size(), 40U);
    for (const std::string& line : lines) EXPECT_LE(columns(line), static_cast<std::size_t>(width)) << line;
  }
  const std::string text = terminal_summary(example_report(), false, 140);
  for (const char* part :
       {"synthetic-example", "xxh3:0011223344556677", "35.6 MiB", "shuffled", "K before RoPE", "layer 0",
        "general lower than repetitive", "no difference found in 50", "tokens/s"})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_THAT(terminal_summary(example_report(), true, 100), HasSubstr("\x1b[1m"));
  EXPECT_THAT(terminal_summary(hostile_report(), false, 200), Not(HasSubstr("\x1b")));
}

TEST(Progress, LinesHaveShareRateAndRemainingTime) {
  EXPECT_EQ(Progress::line("prefill", 1024, 2048, "tokens", 2.0, 10),
            "prefill      [=====     ]  50%  1,024/2,048 tokens  512/s  2.00 s left");
  EXPECT_EQ(Progress::line("load", 0, 0, "bytes", 1.0, 10), "load         0 bytes");
}

TEST(Progress, PlainLinesWithoutATerminalAndNothingWhenQuiet) {
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  {
    Progress progress(Progress::Mode::kAuto, file);
    progress.stage("prefill", 100, "tokens");
    for (int i = 0; i <= 100; ++i) progress.update(i);
    progress.finish();
    Progress quiet(Progress::Mode::kQuiet, file);
    quiet.stage("decode", 1, "tokens");
    quiet.finish();
  }
  std::rewind(file);
  std::string text(4096, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  EXPECT_THAT(text, testing::StartsWith("prefill      100 tokens in "));
  EXPECT_EQ(lines_of(text).size(), 1U);
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST(Progress, CallbackHearsTheEndOfEachStage) {
  std::vector<std::string> heard;
  Progress progress([&](const std::string& stage, int64_t done, int64_t total) {
    heard.push_back(stage + " " + std::to_string(done) + "/" + std::to_string(total));
  });
  progress.stage("a", 3, "x");
  progress.stage("b", 5, "x");
  progress.finish();
  EXPECT_THAT(heard, testing::ElementsAre("a 0/3", "a 3/3", "b 0/5", "b 5/5"));
}

TEST(PageData, IsJsonWithoutMarkup) {
  const std::string data = page_data(hostile_report());
  EXPECT_EQ(data.find('<'), std::string::npos);
  const Json parsed = Json::parse(data);
  EXPECT_EQ(parsed.at("sets").size(), 3U);
  EXPECT_FALSE(parsed.contains("provenance"));
}

}  // namespace
}  // namespace kva
