#include "compressors/recipe_scanner.h"

#include <fmt/format.h>

#include <algorithm>

#include "compressors/argument_value.h"
#include "compressors/spelling.h"
#include "runtime/error.h"
#include "runtime/io/utf8.h"

namespace kva {
namespace {

constexpr std::string_view kBlank = " \t\r\n";
constexpr std::string_view kNameMarks = "_";
constexpr std::string_view kValueMarks = "_.+-%";

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

RecipeScanner::RecipeScanner(std::string_view text, std::size_t max_bytes) : text_(text) {
  if (text.size() > max_bytes)
    throw InputError(fmt::format("recipe: expected at most {} bytes, found {}", max_bytes, text.size()));
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte < 0x20 && kBlank.find(text[i]) == std::string_view::npos) || byte >= 0x7F)
      fail(i, fmt::format("expected plain ASCII text (no typographic dashes or quotes), found byte 0x{:02X}",
                          byte));
  }
}

std::size_t RecipeScanner::position() {
  while (at_ < text_.size()) {
    if (text_[at_] == '#') {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } else if (kBlank.find(text_[at_]) != std::string_view::npos) {
      ++at_;
    } else {
      break;
    }
  }
  return at_;
}

bool RecipeScanner::at_end() { return position() == text_.size(); }

bool RecipeScanner::next_is(char c) { return !at_end() && text_[at_] == c; }

bool RecipeScanner::accept(char c) {
  if (!next_is(c)) return false;
  ++at_;
  return true;
}

void RecipeScanner::expect(char c, const std::string& reason) {
  if (!accept(c)) fail_expected(fmt::format("'{}' {}", c, reason));
}

std::string_view RecipeScanner::run(std::string_view marks) {
  const std::size_t start = position();
  std::size_t end = start;
  while (end < text_.size() &&
         (is_letter(text_[end]) || is_digit(text_[end]) || marks.find(text_[end]) != std::string_view::npos))
    ++end;
  return text_.substr(start, end - start);
}

std::string RecipeScanner::name(const std::string& expected) {
  const std::string_view found = run(kNameMarks);
  if (found.empty() || !is_letter(found.front())) fail_expected(expected);
  at_ += found.size();
  return lower_case(found);
}

std::string RecipeScanner::value(const std::string& expected) {
  const std::string_view found = run(kValueMarks);
  if (found.empty()) fail_expected(expected);
  at_ += found.size();
  return lower_case(found);
}

int64_t RecipeScanner::whole_number(int64_t most, const std::string& expected) {
  const std::string_view found = run("");
  const auto value = read_whole_number(found, most);
  if (!value) fail_expected(fmt::format("{} from 0 to {}", expected, most));
  at_ += found.size();
  return *value;
}

std::string RecipeScanner::place(std::size_t position) const {
  const std::string_view before = text_.substr(0, position);
  const std::size_t line_end = before.rfind('\n');
  const std::size_t column = line_end == std::string_view::npos ? position : position - line_end - 1;
  if (text_.find('\n') == std::string_view::npos) return fmt::format("column {}", column + 1);
  return fmt::format("line {}, column {}", std::ranges::count(before, '\n') + 1, column + 1);
}

void RecipeScanner::fail(std::size_t position, const std::string& message) const {
  throw InputError(fmt::format("recipe, {}: {}", place(position), message));
}

void RecipeScanner::fail_expected(const std::string& expected) {
  const std::size_t start = position();
  std::string found = "the end";
  if (start < text_.size()) {
    const std::string_view token = run(kValueMarks);
    found = quoted_for_error(token.empty() ? text_.substr(start, 1) : token);
  }
  fail(start, fmt::format("expected {}, found {}", expected, found));
}

}  // namespace kva
