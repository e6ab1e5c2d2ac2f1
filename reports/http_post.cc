#include "reports/http_post.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <mutex>

#include "reports/text_format.h"
#include "runtime/interrupt.h"

namespace kva {
namespace {

struct Received {
  HttpAnswer* answer;
  int64_t max_bytes;
  bool too_long = false;
};

std::size_t take(char* data, std::size_t size, std::size_t count, void* user) {
  auto& received = *static_cast<Received*>(user);
  const std::size_t bytes = size * count;
  if (static_cast<int64_t>(received.answer->body.size() + bytes) > received.max_bytes) {
    received.too_long = true;
    return 0;  // curl then ends the transfer
  }
  received.answer->body.append(data, bytes);
  return bytes;
}

int stop_when_interrupted(void*, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return interrupt_requested() ? 1 : 0;
}

void check_global_state() {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
}

using Handle = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;
using Headers = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

Headers header_list(const std::vector<std::string>& headers) {
  curl_slist* list = nullptr;
  for (const std::string& header : headers) list = curl_slist_append(list, header.c_str());
  return {list, &curl_slist_free_all};
}

void set_limits(CURL* handle, const HttpRequest& request) {
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  const auto timeout_ms = static_cast<long>(1000 * request.timeout_s);
  curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, timeout_ms);
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, std::min(timeout_ms, 20000L));
  curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, stop_when_interrupted);
}

}  // namespace

HttpAnswer http_post(const HttpRequest& request) {
  check_global_state();
  const Handle handle(curl_easy_init(), &curl_easy_cleanup);
  HttpAnswer answer;
  if (!handle) {
    answer.problem = "libcurl could not be started";
    return answer;
  }
  Received received{&answer, request.max_bytes};
  const Headers headers = header_list(request.headers);
  CURL* curl = handle.get();
  set_limits(curl, request);
  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request.body.c_str());
  curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &received);
  const CURLcode code = curl_easy_perform(curl);
  throw_if_interrupted();
  if (code != CURLE_OK) {
    answer.body.clear();
    answer.problem = received.too_long ? fmt::format("an answer of over {} bytes", request.max_bytes)
                                       : one_line(curl_easy_strerror(code), 160);
    return answer;
  }
  long status = 0;
  curl_off_t wait_s = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &wait_s);
  answer.status = static_cast<int>(status);
  if (wait_s > 0) answer.retry_after_s = static_cast<double>(wait_s);
  return answer;
}

}  // namespace kva
