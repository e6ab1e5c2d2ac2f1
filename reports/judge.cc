#include "reports/judge.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "reports/assets.h"
#include "reports/report_view.h"
#include "reports/text_format.h"
#include "runtime/error.h"
#include "runtime/interrupt.h"
#include "runtime/io/file.h"
#include "runtime/io/hash.h"
#include "runtime/io/utf8.h"

namespace kva {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxAnswerBytes = int64_t{1} << 20;
constexpr std::size_t kMaxGradedBytes = 200000;  // of a prompt or an answer
constexpr std::size_t kReasonBytes = 600;
constexpr std::size_t kMostOpenings = 64;

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool starts_with(const std::string& text, std::string_view start) { return text.rfind(start, 0) == 0; }

// Without what a URL may hold of secrets: a query.
std::string shown_url(const std::string& url) { return one_line(url.substr(0, url.find('?')), 200); }

std::string checked_url(const std::string& url) {
  const bool http = starts_with(url, "http://") || starts_with(url, "https://");
  const std::size_t host = url.find("//") + 2;
  const std::string authority = http ? url.substr(host, url.find_first_of("/?", host) - host) : "";
  if (!http || authority.empty() || url.find_first_of(" \t\r\n") != std::string::npos)
    throw InputError(
        fmt::format("--judge: expected the URL of a chat endpoint, such as http://localhost:8000/v1, "
                    "found {}",
                    http ? shown_url(url) : one_line(url.substr(0, 12), 40)));
  if (authority.find('@') != std::string::npos)
    throw InputError(
        "--judge: expected a URL without a name and password; the key comes from OPENAI_API_KEY or "
        "AZURE_OPENAI_API_KEY");
  return url;
}

// What users give is often the base of the interface.
std::string endpoint_of(const std::string& url) {
  if (url.find("/chat/completions") != std::string::npos) return url;
  std::string base = url;
  while (base.back() == '/') base.pop_back();
  const bool versioned = base.size() > 3 && base.compare(base.size() - 3, 3, "/v1") == 0;
  return base + (versioned ? "/chat/completions" : "/v1/chat/completions");
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  std::string key = value ? value : "";
  if (key.find_first_of("\r\n") != std::string::npos)
    throw InputError(fmt::format("{}: expected a key on one line", name));
  return key;
}

std::string graded(const std::string& text) {
  if (text.size() <= kMaxGradedBytes) return text;
  const std::string_view kept = std::string_view(text).substr(0, kMaxGradedBytes);
  return std::string(kept.substr(0, finished_utf8(kept))) + "\n[cut]";
}

// The text of the reply in a chat completion; "" and a problem where the answer is none.
std::string reply_of(const std::string& body, std::string& problem) {
  const Json answer = Json::parse(body, nullptr, false);
  if (answer.is_object())
    if (const auto choices = answer.find("choices");
        choices != answer.end() && choices->is_array() && !choices->empty() && choices->front().is_object())
      if (const auto message = choices->front().find("message");
          message != choices->front().end() && message->is_object() && message->contains("content") &&
          message->at("content").is_string())
        return message->at("content").get<std::string>();
  problem = "an answer that is no chat completion";
  return "";
}

std::string text_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

// Nesting is bounded before the parser sees it.
bool too_deep(std::string_view text) {
  int depth = 0, most = 0;
  for (const char c : text) {
    if (c == '{' || c == '[') most = std::max(most, ++depth);
    if (c == '}' || c == ']') --depth;
  }
  return most > 200;
}

bool worth_another_try(const HttpAnswer& answer) {
  return answer.status == 0 || answer.status == 408 || answer.status == 429 || answer.status >= 500;
}

std::string refusal(const HttpAnswer& answer) {
  return answer.status == 0 ? answer.problem : fmt::format("HTTP status {}", answer.status);
}

}  // namespace

bool read_verdict(const std::string& reply, JudgeVerdict& verdict, std::string& problem) {
  problem = "a reply without a JSON object that has a score";
  std::size_t openings = 0;
  for (std::size_t at = reply.find('{'); at != std::string::npos && openings < kMostOpenings;
       at = reply.find('{', at + 1), ++openings) {
    // The shortest text from here that is an object.
    for (std::size_t end = reply.find('}', at), tries = 0; end != std::string::npos && tries < kMostOpenings;
         end = reply.find('}', end + 1), ++tries) {
      const std::string_view piece = std::string_view(reply).substr(at, end - at + 1);
      if (too_deep(piece)) break;
      const Json object = Json::parse(piece, nullptr, false);
      if (!object.is_object()) continue;
      if (!object.contains("score")) break;
      const Json& score = object.at("score");
      const double value = score.is_number() ? score.get<double>() : NAN;
      if (!(value >= 1 && value <= 10)) {
        problem = fmt::format("a score of {}, not of 1 to 10", one_line(text_of(score), 40));
        return false;
      }
      verdict.score = static_cast<int>(std::lround(value));
      verdict.reason = one_line(text_at(object, "reason"), kReasonBytes);
      problem.clear();
      return true;
    }
  }
  return false;
}

Judge::Judge(JudgeOptions options)
    : options_(std::move(options)),
      endpoint_(endpoint_of(checked_url(options_.url))),
      azure_(endpoint_.find("/openai/deployments/") != std::string::npos),
      key_(environment(azure_ ? "AZURE_OPENAI_API_KEY" : "OPENAI_API_KEY")) {
  if (options_.model.empty()) throw InputError("--judge-model: expected the name of a model, found nothing");
  const std::string text(asset("judge_rubric.txt"));
  const std::size_t line = text.find('\n');
  const std::string version = text.substr(0, line);
  instructions_ = text.substr(line + 1);
  rubric_ = fmt::format("{} ({})", version.substr(version.find(' ') + 1), text_hash(text).substr(0, 17));
}

std::string Judge::request_body(const std::string& prompt, const std::string& answer) const {
  const Json body = {{"model", options_.model},
                     {"temperature", 0},
                     {"messages",
                      {{{"role", "system"}, {"content", instructions_}},
                       {{"role", "user"},
                        // As JSON, so that no text can end its own part.
                        {"content", text_of({{"task", graded(prompt)}, {"answer", graded(answer)}})}}}}};
  return text_of(body);
}

void Judge::wait(double seconds) const {
  const double end = now_s() + seconds;
  while (now_s() < end) {
    throw_if_interrupted();
    std::this_thread::sleep_for(std::chrono::duration<double>(std::clamp(end - now_s(), 0.0, 0.05)));
  }
}

HttpAnswer Judge::send(const std::string& body) {
  if (options_.requests_per_minute > 0) wait(last_request_s_ + 60 / options_.requests_per_minute - now_s());
  last_request_s_ = now_s();
  ++requests_;
  HttpRequest request{
      endpoint_, {"Content-Type: application/json", "Expect:"}, body, options_.timeout_s, kMaxAnswerBytes};
  if (!key_.empty()) request.headers.push_back(azure_ ? "api-key: " + key_ : "Authorization: Bearer " + key_);
  return http_post(request);
}

JudgeVerdict Judge::score(const std::string& prompt, const std::string& answer) {
  const std::string body = request_body(prompt, answer);
  const std::string hash = text_hash(endpoint_ + "\n" + body);
  const fs::path kept = options_.cache_folder / (hash.substr(hash.find(':') + 1) + ".json");
  JudgeVerdict verdict;
  std::string problem;
  if (!options_.cache_folder.empty() && fs::is_regular_file(kept) &&
      read_verdict(read_text_file(kept.string(), kMaxAnswerBytes), verdict, problem)) {
    verdict.cached = true;
    return verdict;
  }
  double pause_s = options_.first_wait_s;
  for (int attempt = 1;; ++attempt) {
    const HttpAnswer found = send(body);
    problem = refusal(found);
    if (found.status == 200 && too_deep(found.body))
      problem = "an answer that is nested too deep";
    else if (found.status == 200) {
      const std::string reply = reply_of(found.body, problem);
      if (!reply.empty() && read_verdict(reply, verdict, problem)) break;
    } else if (!worth_another_try(found)) {
      throw InputError(fmt::format("{}: the judge refuses: {}", shown_url(endpoint_), problem));
    }
    if (attempt >= options_.attempts)
      throw InputError(fmt::format("{}: the judge gave no score in {} attempts, at last: {}",
                                   shown_url(endpoint_), options_.attempts, problem));
    wait(std::min(options_.longest_wait_s, found.retry_after_s >= 0 ? found.retry_after_s : pause_s));
    pause_s *= 2;
  }
  // A server that repeats what it was sent must not bring the key into a report.
  if (!key_.empty())
    for (std::size_t at = verdict.reason.find(key_); at != std::string::npos; at = verdict.reason.find(key_))
      verdict.reason.replace(at, key_.size(), "…");
  if (!options_.cache_folder.empty()) {
    make_directories(options_.cache_folder.string());
    write_text_file(kept.string(), text_of({{"score", verdict.score}, {"reason", verdict.reason}}));
  }
  return verdict;
}

}  // namespace kva
