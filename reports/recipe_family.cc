#include "reports/recipe_family.h"

#include <fmt/format.h>

#include <cctype>
#include <functional>
#include <string_view>
#include <vector>

#include "compressors/recipe.h"

namespace kva {
namespace {

constexpr int64_t kDenseBits = 16;  // a width that leaves a side dense

std::string without_numbers(std::string_view text) {
  const auto part_of_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  std::string family;
  for (std::size_t at = 0; at < text.size();) {
    const bool starts =
        std::isdigit(static_cast<unsigned char>(text[at])) && (at == 0 || !part_of_word(text[at - 1]));
    if (!starts) {
      family += text[at++];
      continue;
    }
    while (at < text.size() && (part_of_word(text[at]) || text[at] == '.')) ++at;
    family += '#';
  }
  return family;
}

bool has_parameter(const MethodInfo& method, std::string_view name) {
  for (const ParameterInfo& parameter : method.parameters)
    if (parameter.name == name) return true;
  return false;
}

// As a family shows it; empty where it says what is so by default.
std::string shown(const Arguments& arguments, const ParameterInfo& parameter, bool first) {
  const std::string_view name = parameter.name;
  const Arguments defaults(arguments.method());
  if (parameter.kind == ParameterKind::kFlag)
    return arguments.flag(name) == defaults.flag(name) ? ""
                                                       : fmt::format("{}={}", name, arguments.flag(name));
  if (parameter.kind == ParameterKind::kWord || arguments.is_word(name)) {
    const std::string_view word = arguments.word(name);
    if (first) return std::string(word);
    const bool usual = defaults.has(name) &&
                       (parameter.kind == ParameterKind::kWord || defaults.is_word(name)) &&
                       defaults.word(name) == word;
    return usual ? "" : fmt::format("{}={}", name, word);
  }
  const auto number = [&](const Arguments& of) {
    return parameter.kind == ParameterKind::kInteger ? static_cast<double>(of.integer(name))
                                                     : of.number(name);
  };
  const bool off =
      number(arguments) == 0 && defaults.has(name) && !defaults.is_word(name) && number(defaults) == 0;
  return off ? "" : fmt::format("{}=#", name);
}

std::string step_family(const RecipeStep& step) {
  const Arguments& arguments = step.arguments;
  const MethodInfo& method = *step.method;
  const bool widths =
      has_parameter(method, "bits") && has_parameter(method, "k") && has_parameter(method, "v");
  std::vector<std::string> parts;
  if (widths) parts.emplace_back("bits=#");
  for (std::size_t i = 0; i < method.parameters.size(); ++i) {
    const ParameterInfo& parameter = method.parameters[i];
    if (!arguments.given(i)) continue;
    if (widths && (parameter.name == "bits" || parameter.name == "k" || parameter.name == "v")) {
      if (arguments.integer(parameter.name) == kDenseBits)
        parts.push_back(fmt::format("{}=dense", parameter.name));
      continue;
    }
    if (std::string part = shown(arguments, parameter, i == 0); !part.empty())
      parts.push_back(std::move(part));
  }
  const std::string trigger = step.text().substr(method.name.size() + arguments.text().size());
  std::string text(method.name);
  if (!parts.empty()) text += fmt::format("({})", fmt::join(parts, ","));
  return text + without_numbers(trigger);
}

// The recipe's text with each step written by `write`, and what stands between them by `between`.
std::string rewritten(const Recipe& recipe, const std::function<std::string(const RecipeStep&)>& write,
                      const std::function<std::string(std::string_view)>& between) {
  const std::string text = recipe.text();
  std::string result;
  std::size_t at = 0;
  for (const Statement& statement : recipe.statements()) {
    for (const RecipeStep& step : statement.pipeline) {
      const std::string written = step.text();
      const std::size_t found = text.find(written, at);
      if (found == std::string::npos) continue;  // an implied statement, which is not written
      result += between(std::string_view(text).substr(at, found - at)) + write(step);
      at = found + written.size();
    }
  }
  return result + between(std::string_view(text).substr(at));
}

std::string evicting(const RecipeStep& step) {
  const Arguments& merge = step.arguments;
  std::string evict = fmt::format("evict(keep={}", merge.number("keep"));
  for (const char* name : {"sinks", "window"})
    if (merge.given(name)) evict += fmt::format(",{}={}", name, merge.integer(name));
  return evict + ")" + step.text().substr(step.method->name.size() + merge.text().size());
}

}  // namespace

std::string recipe_family(const std::string& recipe) {
  return rewritten(Recipe::parse(recipe), step_family, without_numbers);
}

std::optional<std::string> eviction_base(const std::string& recipe) {
  bool merges = false;
  const auto write = [&](const RecipeStep& step) {
    if (step.method->name != "merge") return step.text();
    merges = true;
    return evicting(step);
  };
  const std::string base =
      rewritten(Recipe::parse(recipe), write, [](std::string_view text) { return std::string(text); });
  if (!merges) return std::nullopt;
  return Recipe::parse(base).text();
}

}  // namespace kva
