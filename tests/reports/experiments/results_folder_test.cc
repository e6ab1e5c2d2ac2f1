#include "reports/experiments/results_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/error.h"

namespace kva {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using testing::HasSubstr;

class ResultsFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("kvanalyze-results-" + std::to_string(::getpid()));
    fs::remove_all(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  static Json row(const std::string& trial) { return {{"trial", trial}, {"status", "ok"}, {"n", 1}}; }
  std::string text(const std::string& name = kResultsFile) const {
    std::ifstream file(folder_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void write(const std::string& content, const std::string& name = kResultsFile) const {
    fs::create_directories(folder_);
    std::ofstream(folder_ / name, std::ios::binary) << content;
  }
  std::string open_error() const {
    try {
      ResultsFolder results(folder_.string(), {});
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  }

  fs::path folder_;
};

TEST_F(ResultsFolderTest, FinishedTrialsAreThereAgain) {
  {
    ResultsFolder results(folder_.string(), {});
    EXPECT_EQ(results.row("a"), nullptr);
    results.append(row("a"));
    results.append(row("b"));
    EXPECT_EQ(results.row("a")->at("n"), 1);
  }
  ResultsFolder results(folder_.string(), {});
  EXPECT_EQ(results.rows(), 2u);
  ASSERT_NE(results.row("b"), nullptr);
  EXPECT_EQ(*results.row("b"), row("b"));
}

// Wherever a kill cuts the file, whole lines before it stay and the rest goes.
TEST_F(ResultsFolderTest, EveryCutOfTheLastLineIsSurvived) {
  const std::string first = row("a").dump() + "\n", second = row("b").dump() + "\n";
  for (std::size_t cut = 0; cut <= second.size(); ++cut) {
    write(first + second.substr(0, cut));
    {
      ResultsFolder results(folder_.string(), {});
      EXPECT_EQ(results.rows(), cut == second.size() ? 2u : 1u) << cut;
      if (cut < second.size()) {
        EXPECT_EQ(text(), first) << cut;
        results.append(row("b"));
      }
    }
    EXPECT_EQ(text(), first + second) << cut;
  }
}

TEST_F(ResultsFolderTest, DamageInTheMiddleIsToldAndKept) {
  const std::string damaged = row("a").dump() + "\nno row\n" + row("b").dump() + "\n";
  write(damaged);
  EXPECT_THAT(open_error(), HasSubstr("results.jsonl:2"));
  EXPECT_EQ(text(), damaged);
  write("{\"trial\": 5}\n" + row("b").dump() + "\n");
  EXPECT_THAT(open_error(), HasSubstr("trial"));
  write("{\"trial\": \"x\"}\n" + row("b").dump() + "\n");
  EXPECT_THAT(open_error(), HasSubstr("results.jsonl:1: status"));
}

TEST_F(ResultsFolderTest, OneRunAtATime) {
  const ResultsFolder first(folder_.string(), {});
  EXPECT_THAT(open_error(), HasSubstr("another --output-dir"));
  EXPECT_THROW(ResultsFolder(folder_.string(), {.index = 1, .count = 2}), InputError);
}

TEST_F(ResultsFolderTest, ShardsShareAFolderAndAreJoined) {
  {
    ResultsFolder one(folder_.string(), {.index = 1, .count = 2});
    ResultsFolder two(folder_.string(), {.index = 2, .count = 2});
    EXPECT_THROW(ResultsFolder(folder_.string(), {.index = 2, .count = 2}), InputError) << "the same shard";
    EXPECT_THROW(ResultsFolder(folder_.string(), {}), InputError) << "a whole run";
    one.append(row("a"));
    two.append(row("b"));
    two.append(row("c"));
  }
  EXPECT_EQ(text(), "");
  write(text("results.shard-2-of-2.jsonl") + "{\"torn", "results.shard-2-of-2.jsonl");
  for (int again = 0; again < 2; ++again) {
    ResultsFolder all(folder_.string(), {});
    EXPECT_EQ(all.rows(), 3u);
    EXPECT_EQ(text(), row("a").dump() + "\n" + row("b").dump() + "\n" + row("c").dump() + "\n");
  }
}

TEST(Shard, IsAPartOfAWhole) {
  EXPECT_EQ(parse_shard("2/4").index, 2);
  EXPECT_EQ(parse_shard("2/4").count, 4);
  for (const char* bad : {"", "2", "0/4", "5/4", "1/0", "a/4", "1/4x", "1/-4", " 1/4", "1/999999999"})
    EXPECT_THROW(parse_shard(bad), InputError) << bad;
}

}  // namespace
}  // namespace kva
