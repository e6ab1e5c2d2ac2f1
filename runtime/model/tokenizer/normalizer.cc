#include "runtime/model/tokenizer/normalizer.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "runtime/error.h"
#include "runtime/io/utf8.h"
#include "runtime/model/tokenizer/pattern.h"
#include "runtime/model/tokenizer/read_pattern.h"

namespace kva::tok {
namespace {

constexpr std::size_t kMaxSteps = 32;
// Unicode's own forms grow a text at most eighteenfold (NFKC of U+FDFA); a file may not do worse.
constexpr std::size_t kMaxGrowth = 32;
constexpr std::size_t kFreeGrowthBytes = 1 << 20;

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::string unicode_form(const std::string& text, int options) {
  if (is_ascii(text)) return text;
  utf8proc_uint8_t* made = nullptr;
  const auto bytes = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                  static_cast<utf8proc_ssize_t>(text.size()), &made,
                                  static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(made, &std::free);
  if (bytes < 0) throw InputError(fmt::format("Unicode normalization failed: {}", utf8proc_errmsg(bytes)));
  return {reinterpret_cast<const char*>(made), static_cast<std::size_t>(bytes)};
}

std::string replaced(const std::string& text, const Pattern& pattern, const std::string& content,
                     const std::string& where) {
  const std::size_t limit = text.size() * kMaxGrowth + kFreeGrowthBytes;
  std::string out;
  out.reserve(text.size());
  for_each_span(pattern, text, [&](std::size_t begin, std::size_t end, bool is_match) {
    out += is_match ? std::string_view(content) : std::string_view(text).substr(begin, end - begin);
    if (out.size() > limit)
      throw InputError(
          fmt::format("{}: expected a replacement that lets a text grow at most {} times, found more", where,
                      kMaxGrowth));
  });
  return out;
}

// The options of utf8proc_map for a Unicode form, 0 for another name.
int form_options(const std::string& type) {
  if (type == "NFC") return UTF8PROC_STABLE | UTF8PROC_COMPOSE;
  if (type == "NFD") return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
  if (type == "NFKC") return UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT;
  if (type == "NFKD") return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT;
  return 0;
}

}  // namespace

Normalizer Normalizer::read(const JsonNode& node) {
  Normalizer normalizer;
  normalizer.add(node);
  return normalizer;
}

void Normalizer::add(const JsonNode& node) {
  const std::string type = node.at("type").as_string();
  if (type == "Sequence") {
    const JsonNode list = node.at("normalizers");
    for (int64_t i = 0; i < list.size(); ++i) add(list.at(i));
  } else if (const int options = form_options(type); options != 0) {
    steps_.push_back([options](const std::string& text) { return unicode_form(text, options); });
  } else if (type == "Prepend") {
    steps_.push_back(
        [prefix = node.at("prepend").as_string()](const std::string& text) { return prefix + text; });
  } else if (type == "Replace") {
    steps_.push_back([pattern = read_pattern(node.at("pattern")), content = node.at("content").as_string(),
                      where = where_of(node)](const std::string& text) {
      return replaced(text, pattern, content, where);
    });
  } else {
    node.at("type").fail("NFC, NFD, NFKC, NFKD, Prepend, Replace or Sequence");
  }
  if (steps_.size() > kMaxSteps) node.fail(fmt::format("at most {} normalizers in all", kMaxSteps));
}

std::string Normalizer::apply(std::string text) const {
  for (const Step& step : steps_) {
    if (text.empty()) break;
    text = step(text);
  }
  return text;
}

}  // namespace kva::tok
