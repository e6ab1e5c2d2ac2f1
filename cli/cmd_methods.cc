// `kvanalyze methods`: what a recipe can say, from the descriptions that parse it.

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "compressors/argument_value.h"
#include "compressors/methods.h"
#include "compressors/spelling.h"
#include "runtime/error.h"
#include "runtime/io/utf8.h"

namespace kva::cli {
namespace {

using nlohmann::ordered_json;

constexpr std::size_t kWidth = 96;
constexpr std::size_t kNameWidth = 24;

constexpr const char* kFooter = R"(A recipe joins steps with | and statements with ;
  quant(bits=4)                                        one method for the whole cache
  layers(0-1,-1): dense(f16) ; rest: quant(k=8,v=4)    by layer (-1 is the last), so heads(0,2) too
  side(k)&layers(0-3): quant(bits=8)                   selectors joined with &; the other cells stay
                                                       dense(f16)
  keys(plain) ; quant(axes=kivi)@prefill               keys before RoPE; acts after the prompt
Values without a name fill the parameters in order; 50% is 0.5. A step acts on full pages (@seal)
or at @prefill, @every=64, @tokens>1024.)";

// Words of `text` in lines that start at `column`; the first line is already there.
std::string wrapped(std::string_view text, std::size_t column) {
  std::string out;
  std::size_t at = column;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (at > column && at + 1 + end > kWidth) {
      out += "\n" + std::string(column, ' ');
      at = column;
    } else if (at > column) {
      out += ' ';
      ++at;
    }
    out += text.substr(0, end);
    at += end;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

void print_indented(std::size_t column, const std::string& text) {
  fmt::print("{:{}}{}\n", "", column, wrapped(text, column));
}

std::string joined(const std::vector<std::string_view>& names) {
  return listed(std::vector<std::string>(names.begin(), names.end()), "and");
}

void print_words(const ParameterInfo& parameter) {
  std::size_t width = 0;
  for (const WordInfo& word : parameter.words) width = std::max(width, word.name.size());
  for (const WordInfo& word : parameter.words) {
    std::string meaning(word.meaning);
    if (!word.aliases.empty()) meaning += fmt::format(" (also {})", joined(word.aliases));
    fmt::print("{:{}}{:<{}}  {}\n", "", kNameWidth + 2, word.name, width,
               wrapped(meaning, kNameWidth + 4 + width));
  }
}

void print_parameter(const ParameterInfo& parameter) {
  const std::string name = parameter.fallback.empty()
                               ? fmt::format("{} (unset)", parameter.name)
                               : fmt::format("{}={}", parameter.name, parameter.fallback);
  std::string help(parameter.help);
  if (!parameter.aliases.empty()) help += fmt::format(" (also {})", joined(parameter.aliases));
  const bool obvious = parameter.kind == ParameterKind::kFlag || parameter.kind == ParameterKind::kWord;
  if (!obvious)
    help += fmt::format(" [{}{}{}]", expected_values(parameter), parameter.unit.empty() ? "" : " ",
                        parameter.unit);
  const bool fits = name.size() + 3 < kNameWidth;
  fmt::print("  {:<{}}{}{}\n", name, fits ? kNameWidth - 2 : 0,
             fits ? "" : "\n" + std::string(kNameWidth, ' '), wrapped(help, kNameWidth));
  print_words(parameter);
}

void print_method(const MethodInfo& method) {
  fmt::print("{} ({} of {})\n", method.name, method_kind_name(method.kind), sides_name(method.sides));
  print_indented(2, std::string(method.meaning));
  for (const MethodAlias& alias : method.aliases)
    print_indented(2, fmt::format("{} is {}({})", alias.name, method.name, alias.argument));
  for (const ParameterInfo& parameter : method.parameters) print_parameter(parameter);
  for (const Paper& paper : method.papers)
    print_indented(2, fmt::format("arXiv:{} {}", paper.arxiv, paper.title));
  fmt::print("\n");
}

ordered_json parameter_json(const ParameterInfo& parameter) {
  ordered_json words = ordered_json::array();
  for (const WordInfo& word : parameter.words)
    words.push_back({{"name", word.name}, {"aliases", word.aliases}, {"meaning", word.meaning}});
  const bool number = parameter.kind != ParameterKind::kWord && parameter.kind != ParameterKind::kFlag;
  ordered_json json = {{"name", parameter.name},
                       {"aliases", parameter.aliases},
                       {"kind", parameter_kind_name(parameter.kind)},
                       {"default", nullptr},
                       {"takes", expected_values(parameter)}};
  if (!parameter.fallback.empty()) json["default"] = parameter.fallback;
  if (number) {
    json["lower"] = parameter.lower;
    json["above_lower"] = parameter.above_lower;
    json["upper"] = parameter.upper;
  }
  if (!parameter.values.empty()) json["values"] = parameter.values;
  json["words"] = words;
  json["unit"] = parameter.unit;
  json["help"] = parameter.help;
  return json;
}

ordered_json method_json(const MethodInfo& method) {
  ordered_json aliases = ordered_json::array(), papers = ordered_json::array(),
               parameters = ordered_json::array();
  for (const MethodAlias& alias : method.aliases)
    aliases.push_back(
        {{"name", alias.name}, {"stands_for", fmt::format("{}({})", method.name, alias.argument)}});
  for (const Paper& paper : method.papers) papers.push_back({{"title", paper.title}, {"arxiv", paper.arxiv}});
  for (const ParameterInfo& parameter : method.parameters) parameters.push_back(parameter_json(parameter));
  return {{"name", method.name},
          {"aliases", aliases},
          {"meaning", method.meaning},
          {"kind", method_kind_name(method.kind)},
          {"sides", sides_name(method.sides)},
          {"papers", papers},
          {"parameters", parameters}};
}

std::vector<const MethodInfo*> chosen_methods(const std::string& name) {
  std::vector<const MethodInfo*> chosen;
  std::vector<std::string_view> names;
  if (const MethodInfo* method = find_method(name)) return {method};
  for (const MethodInfo& method : methods()) {
    chosen.push_back(&method);
    names.push_back(method.name);
    for (const MethodAlias& alias : method.aliases) names.push_back(alias.name);
  }
  if (!name.empty())
    throw InputError(fmt::format("methods: expected a method, found {}{} (kvanalyze methods lists them)",
                                 quoted_for_error(name), suggestion(lower_case(name), names)));
  return chosen;
}

void run(const std::string& name, bool json) {
  const std::vector<const MethodInfo*> chosen = chosen_methods(name);
  if (json) {
    ordered_json list = ordered_json::array();
    for (const MethodInfo* method : chosen) list.push_back(method_json(*method));
    fmt::print("{}\n", ordered_json{{"methods", list}}.dump(2));
    return;
  }
  for (const MethodInfo* method : chosen) print_method(*method);
  if (name.empty()) fmt::print("{}\n", kFooter);
}

}  // namespace

void add_methods(CLI::App& app) {
  struct Options {
    std::string name;
    bool json = false;
  };
  auto* command = app.add_subcommand("methods", "Methods of recipes: parameters, defaults, bounds, papers");
  auto options = std::make_shared<Options>();
  command->add_option("name", options->name, "One method (without: all)")->type_name("NAME");
  command->add_flag("--json", options->json, "Print one JSON object");
  command->footer(kFooter);
  command->callback([options] { run(options->name, options->json); });
}

}  // namespace kva::cli
