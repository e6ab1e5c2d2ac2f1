// The written forms of a report on a compressed capture.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "reports/html_report.h"
#include "reports/markdown_report.h"
#include "reports/report_file.h"
#include "reports/terminal_summary.h"
#include "tests/reports/example_report.h"

namespace kva {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(CompressForms, EveryFormSaysBothSizesAndWhatStoodInForQueries) {
  const auto report = example_compress_report();
  check_report(report, "example");
  const std::string terminal = terminal_summary(report, false, 120);
  const std::string markdown = markdown_report(report, {});
  const std::string html = html_report(report, {}, {}, "");
  for (const std::string& form : {terminal, markdown, html}) {
    EXPECT_THAT(form, HasSubstr("Held in memory: 104 KiB"));
    EXPECT_THAT(form, HasSubstr("On disk: 78.1 KiB"));
    EXPECT_THAT(form, HasSubstr("the capture itself"));
    EXPECT_THAT(form, HasSubstr("90.0 KiB predicted, 90.0 KiB achieved"));
    EXPECT_THAT(form, HasSubstr("payload.bin.zst"));
    EXPECT_THAT(form, HasSubstr("0.102"));
    EXPECT_THAT(form, HasSubstr("decodes and encodes again"));
  }
  for (const std::string& form : {markdown, html}) EXPECT_THAT(form, HasSubstr("stand in for the queries"));
}

TEST(CompressForms, ADryRunHasNoErrorsAndNoDisk) {
  const auto report = example_compress_report(true);
  check_report(report, "example");
  const std::string terminal = terminal_summary(report, false, 120);
  EXPECT_THAT(terminal, HasSubstr("Dry run"));
  EXPECT_THAT(terminal, Not(HasSubstr("On disk:")));
  EXPECT_THAT(terminal, Not(HasSubstr("Errors by layer")));
  EXPECT_THAT(markdown_report(report, {}), Not(HasSubstr("Errors by layer")));
  EXPECT_THAT(html_report(report, {}, {}, ""), HasSubstr("Dry run"));
}

TEST(CompressForms, HostileNamesStayText) {
  auto report = example_compress_report();
  const std::string script = "<script>window.pwned=1</script>\x1b[31m| x";
  report["compression"]["recipe"] = script;
  report["compression"]["learnt_from"] = script;
  report["compression"]["codecs"][0]["name"] = script;
  report["compression"]["files"]["parts"][0]["name"] = script;
  report["compression"]["codec"]["remarks"][0] = script;
  report["model"]["name"] = script;
  check_report(report, "hostile");
  EXPECT_THAT(html_report(report, {}, {}, ""), Not(HasSubstr("<script>window")));
  EXPECT_THAT(markdown_report(report, {}), Not(HasSubstr("<script>")));
  EXPECT_THAT(terminal_summary(report, false, 120), Not(HasSubstr("\x1b")));
}

}  // namespace
}  // namespace kva
