#include "reports/judge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/error_of.h"

namespace kva {
namespace {

using testing::HasSubstr;
using testing::Not;

JudgeVerdict verdict_of(const std::string& reply) {
  JudgeVerdict verdict;
  std::string problem;
  EXPECT_TRUE(read_verdict(reply, verdict, problem)) << reply << ": " << problem;
  return verdict;
}

std::string problem_of(const std::string& reply) {
  JudgeVerdict verdict;
  std::string problem;
  EXPECT_FALSE(read_verdict(reply, verdict, problem)) << reply;
  EXPECT_EQ(problem.find('\n'), std::string::npos);
  return problem;
}

TEST(JudgeReply, IsReadAsModelsWriteIt) {
  EXPECT_EQ(verdict_of(R"({"score": 7, "reason": "Right, but {short}."})").score, 7);
  EXPECT_EQ(verdict_of(R"({"score": 7, "reason": "Right, but {short}."})").reason, "Right, but {short}.");
  EXPECT_EQ(verdict_of("```json\n{\"reason\": \"a\\nb\", \"score\": 3.0}\n```").reason, "a b");
  EXPECT_EQ(verdict_of("I think {this} of it: {\"score\": 10}").score, 10);
}

TEST(JudgeReply, IsRefusedWithoutAScoreOfOneToTen) {
  for (const char* reply : {"", "7", "{}", "score: 7", "{\"score\": 7", "[{}]"})
    EXPECT_THAT(problem_of(reply), HasSubstr("without a JSON object that has a score")) << reply;
  for (const char* reply : {R"({"score": 11})", R"({"score": 0})", R"({"score": "7"})", R"({"score": null})",
                            R"({"score": 1e400})", R"({"score": [1]})"})
    problem_of(reply);
  problem_of(std::string(100000, '{') + "}");
  problem_of(std::string(100000, '[') + "{\"score\":" + std::string(100000, '['));
}

TEST(JudgeOptions, RefuseWhatIsNoEndpoint) {
  const auto refused = [](const std::string& url) {
    return error_of([&] { Judge judge({.url = url, .model = "m"}); });
  };
  for (const char* url : {"", "localhost", "ftp://x", "http://", "http://a b", "file:///etc/passwd"})
    EXPECT_THAT(refused(url), HasSubstr("--judge: expected the URL")) << url;
  EXPECT_THAT(refused("https://me:secret@host/v1"), HasSubstr("without a name and password"));
  EXPECT_THAT(refused("https://me:secret@host/v1"), Not(HasSubstr("secret")));
  EXPECT_THAT(error_of([] { Judge judge({.url = "http://x", .model = ""}); }), HasSubstr("--judge-model"));
  EXPECT_EQ(refused("http://localhost:1/v1"), "no error");
}

TEST(JudgeRubric, IsNamedByVersionAndHash) {
  const Judge judge({.url = "http://x", .model = "m"});
  EXPECT_THAT(judge.rubric(), testing::MatchesRegex("1 .xxh3:[0-9a-f]+."));
}

}  // namespace
}  // namespace kva
