#include "compressors/argument_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <vector>

#include "compressors/spelling.h"

namespace kva {
namespace {

constexpr std::string_view kDigits = "0123456789";

std::optional<int64_t> read_signed(std::string_view text) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  const auto magnitude = read_whole_number(text, std::numeric_limits<int64_t>::max());
  if (!magnitude) return std::nullopt;
  return negative ? -*magnitude : *magnitude;
}

// Decimal only: from_chars alone would also read "inf" and "nan". A percentage is read as a power of ten, so
// that 0.7% is the very number 0.007.
std::optional<double> read_number(std::string_view text) {
  std::string decimal(text);
  if (text.ends_with('%')) {
    decimal.pop_back();
    if (decimal.find('e') != std::string::npos) return std::nullopt;
    decimal += "e-2";
  }
  if (decimal.find_first_not_of("0123456789.e+-") != std::string::npos) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(decimal.data(), decimal.data() + decimal.size(), value);
  if (error != std::errc() || end != decimal.data() + decimal.size()) return std::nullopt;
  return value + 0.0;  // no negative zero
}

bool within(const ParameterInfo& parameter, double value, double upper) {
  return (parameter.above_lower ? value > parameter.lower : value >= parameter.lower) && value <= upper;
}

std::optional<ArgumentValue> read_integer(const ParameterInfo& parameter, std::string_view text) {
  const auto value = read_signed(text);
  if (!value || !within(parameter, static_cast<double>(*value), parameter.upper)) return std::nullopt;
  if (!parameter.values.empty() && std::ranges::find(parameter.values, *value) == parameter.values.end())
    return std::nullopt;
  return *value;
}

std::optional<ArgumentValue> read_share(const ParameterInfo& parameter, std::string_view text) {
  const auto value = read_number(text);
  if (!value || *value < 0 || *value > 1 || (parameter.above_lower && *value == 0)) return std::nullopt;
  return *value;
}

std::string_view find_word(const ParameterInfo& parameter, std::string_view text) {
  for (const WordInfo& word : parameter.words)
    if (word.name == text || std::ranges::find(word.aliases, text) != word.aliases.end()) return word.name;
  return {};
}

std::string range(const ParameterInfo& parameter, double upper) {
  return parameter.above_lower ? fmt::format("over {} and up to {}", parameter.lower, upper)
                               : fmt::format("from {} to {}", parameter.lower, upper);
}

std::vector<std::string> word_names(const ParameterInfo& parameter) {
  std::vector<std::string> names;
  for (const WordInfo& word : parameter.words) names.emplace_back(word.name);
  return names;
}

std::string expected_integers(const ParameterInfo& parameter) {
  std::vector<std::string> takes = word_names(parameter);
  if (parameter.values.empty()) {
    takes.insert(takes.begin(), "a whole number " + range(parameter, parameter.upper));
  } else {
    std::vector<std::string> values;
    for (const int64_t value : parameter.values) values.push_back(std::to_string(value));
    takes.insert(takes.begin(), values.begin(), values.end());
  }
  return listed(takes, "or");
}

}  // namespace

std::optional<int64_t> read_whole_number(std::string_view text, int64_t most) {
  if (text.empty() || text.find_first_not_of(kDigits) != std::string_view::npos) return std::nullopt;
  int64_t value = 0;
  const auto error = std::from_chars(text.data(), text.data() + text.size(), value).ec;
  if (error != std::errc() || value > most) return std::nullopt;
  return value;
}

std::optional<ArgumentValue> read_value(const ParameterInfo& parameter, std::string_view text) {
  if (const std::string_view word = find_word(parameter, text); !word.empty()) return word;
  switch (parameter.kind) {
    case ParameterKind::kWord: break;
    case ParameterKind::kFlag:
      if (text == "true" || text == "false") return text == "true";
      break;
    case ParameterKind::kInteger: return read_integer(parameter, text);
    case ParameterKind::kNumber:
      if (const auto value = read_number(text); value && within(parameter, *value, parameter.upper))
        return *value;
      break;
    case ParameterKind::kCountOrShare:
      return read_signed(text) ? read_integer(parameter, text) : read_share(parameter, text);
  }
  return std::nullopt;
}

std::string value_text(const ParameterInfo& parameter, const ArgumentValue& value) {
  if (const auto* integer = std::get_if<int64_t>(&value)) return std::to_string(*integer);
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* word = std::get_if<std::string_view>(&value)) return std::string(*word);
  if (!std::holds_alternative<double>(value)) return "";
  std::string text = fmt::format("{}", std::get<double>(value));
  // The point keeps a share of 1 from being read as a count of 1.
  if (parameter.kind == ParameterKind::kCountOrShare && text.find_first_of(".e") == std::string::npos)
    text += ".0";
  return text;
}

std::string expected_values(const ParameterInfo& parameter) {
  switch (parameter.kind) {
    case ParameterKind::kInteger: return expected_integers(parameter);
    case ParameterKind::kNumber: return "a number " + range(parameter, parameter.upper);
    case ParameterKind::kCountOrShare:
      return fmt::format("a whole number {} or a share such as 0.5 or 50%",
                         range(parameter, parameter.upper));
    case ParameterKind::kWord: return listed(word_names(parameter), "or");
    case ParameterKind::kFlag: return "true or false";
  }
  return "?";
}

}  // namespace kva
