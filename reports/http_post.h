// One HTTP POST with limits, through libcurl.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kva {

struct HttpRequest {
  std::string url;                   // http:// or https://
  std::vector<std::string> headers;  // "Name: value"; never printed
  std::string body;
  double timeout_s = 60;                 // for the whole exchange
  int64_t max_bytes = int64_t{1} << 20;  // of the answer
};

struct HttpAnswer {
  int status = 0;  // 0: there was no answer, and `problem` says why
  std::string body;
  double retry_after_s = -1;  // what the server asks for; -1 where it does not
  std::string problem;        // one line without anything of the request's headers
};

// Follows no redirects, so that headers go nowhere else. Throws Interrupted after Ctrl-C.
HttpAnswer http_post(const HttpRequest& request);

}  // namespace kva
