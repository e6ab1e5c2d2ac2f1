#include "reports/plotly.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <vector>

#include "runtime/error.h"
#include "runtime/io/file.h"

namespace kva {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxBytes = int64_t{32} << 20;

std::vector<fs::path> usual_places() {
  std::vector<fs::path> places;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const fs::path tail = fs::path("kvanalyze") / "assets" / "plotly.min.js";
  if (cache && *cache != '\0')
    places.push_back(fs::path(cache) / tail);
  else if (home && *home != '\0')
    places.push_back(fs::path(home) / ".cache" / tail);
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) places.push_back(program.parent_path().parent_path() / "share" / tail);
  return places;
}

// Text that would end its <script> element early, in any case of letters.
bool ends_script(std::string_view text) {
  constexpr std::string_view kEnd = "</script";
  constexpr std::string_view kComment = "<!--";
  const auto same = [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; };
  return std::search(text.begin(), text.end(), kEnd.begin(), kEnd.end(), same) != text.end() ||
         text.find(kComment) != std::string_view::npos;
}

std::string read_bundle(const std::string& path) {
  std::string text = read_text_file(path, kMaxBytes);
  if (text.substr(0, 2000).find("plotly.js v") == std::string::npos || ends_script(text))
    throw InputError(fmt::format(
        "{}: expected plotly.min.js, found another file; scripts/fetch_plotly.py fetches it", path));
  return text;
}

}  // namespace

std::string load_plotly(const std::string& path) {
  if (!path.empty()) return read_bundle(path);
  std::error_code ignored;
  for (const fs::path& place : usual_places())
    if (fs::is_regular_file(place, ignored)) return read_bundle(place.string());
  return "";
}

}  // namespace kva
