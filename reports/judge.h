// A language model behind an OpenAI-compatible chat endpoint that grades answers (L. Zheng et al., Judging
// LLM-as-a-Judge with MT-Bench and Chatbot Arena, 2023: single-answer grading).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "reports/http_post.h"
#include "reports/progress.h"

namespace kva {

struct JudgeOptions {
  // "http://host:8000", ".../v1", ".../v1/chat/completions", or Azure's
  // "https://NAME.openai.azure.com/openai/deployments/DEPLOYMENT/chat/completions?api-version=...".
  std::string url;
  std::string model;
  // Answers by the hash of their request; empty: not kept.
  std::filesystem::path cache_folder;
  double timeout_s = 60;            // of one request
  int attempts = 5;                 // of one answer, the first among them
  double first_wait_s = 1;          // before the second attempt, doubled for each one after
  double longest_wait_s = 60;       // also where the server asks for more
  double requests_per_minute = 60;  // 0: as fast as they are answered
};

struct JudgeVerdict {
  int score = 0;       // 1 to 10
  std::string reason;  // one line
  bool cached = false;
};

class Judge {
 public:
  // The key comes from AZURE_OPENAI_API_KEY for a URL of Azure's form, else from OPENAI_API_KEY; without one
  // requests carry none. It is in no message, file or report. Throws InputError for a URL that is none, one
  // with a name and password in it, or an empty model.
  explicit Judge(JudgeOptions options);

  // Asks at temperature 0. Requests that end in 408, 429, 5xx, no answer, or an answer without a score are
  // sent again after a wait that doubles, or that Retry-After names. Throws InputError with one line where
  // none of the attempts gave a score, at once for other refusals (401, 404, ...); Interrupted.
  JudgeVerdict score(const std::string& prompt, const std::string& answer);

  const std::string& model() const { return options_.model; }
  // The stored rubric's version and hash: "1 (xxh3:0123456789ab)".
  const std::string& rubric() const { return rubric_; }
  int64_t requests() const { return requests_; }  // sent so far

 private:
  std::string request_body(const std::string& prompt, const std::string& answer) const;
  HttpAnswer send(const std::string& body);
  void wait(double seconds) const;

  JudgeOptions options_;
  std::string endpoint_;
  bool azure_ = false;
  std::string key_;
  std::string instructions_;
  std::string rubric_;
  int64_t requests_ = 0;
  double last_request_s_ = -1e9;  // on the steady clock
};

// The score and reason in the text of a reply: its first JSON object that has "score", in a code block or
// among words, too. False where there is none or its score is no number from 1 to 10; then `problem` is one
// line.
bool read_verdict(const std::string& reply, JudgeVerdict& verdict, std::string& problem);

struct JudgedRows {
  int64_t judged = 0;
  int64_t kept = 0;     // that this judge and rubric had judged before
  int64_t skipped = 0;  // failed trials, and those without a text
};

// Adds "judge" to the rows of a results folder (trial_rows.h) and rewrites its results.jsonl whole, while no
// run may write there. The turns of a trial are graded together. Throws InputError, and leaves the file as it
// was, where a run holds the folder or the judge does not answer; what it answered is in the cache.
// Interrupted likewise.
JudgedRows judge_results(const std::filesystem::path& results_folder, Judge& judge, Progress& progress);

}  // namespace kva
