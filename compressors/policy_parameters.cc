#include "compressors/policy_parameters.h"

#include <algorithm>

#include "compressors/token_page.h"

namespace kva {
namespace {

constexpr double kMostTokens = 1 << 30;

bool takes(const Arguments& arguments, std::string_view name) {
  const auto& parameters = arguments.method().parameters;
  return std::any_of(parameters.begin(), parameters.end(), [&](const auto& of) { return of.name == name; });
}

}  // namespace

Extent extent_of(const Arguments& arguments, std::string_view name) {
  const double value = arguments.number(name);
  return {value, value <= 1.0};
}

RankedOptions ranked_options(const Arguments& arguments) {
  RankedOptions options;
  if (takes(arguments, "keep")) options.keep = extent_of(arguments, "keep");
  if (takes(arguments, "sinks")) options.sinks = arguments.integer("sinks");
  if (takes(arguments, "recent") && arguments.has("recent")) options.recent = extent_of(arguments, "recent");
  if (takes(arguments, "scope")) options.by_layer = arguments.word("scope") == "layer";
  return options;
}

ParameterInfo tokens_parameter(std::string_view name, std::string_view fallback, std::string_view help) {
  return {.name = name,
          .kind = ParameterKind::kCountOrShare,
          .fallback = fallback,
          .lower = 0,
          .upper = kMostTokens,
          .above_lower = true,
          .unit = "tokens",
          .help = help};
}

ParameterInfo optional_tokens_parameter(std::string_view name, std::string_view fallback,
                                        std::string_view help) {
  ParameterInfo parameter = tokens_parameter(name, fallback, help);
  parameter.above_lower = false;
  return parameter;
}

ParameterInfo sinks_parameter(std::string_view fallback) {
  return {.name = "sinks",
          .kind = ParameterKind::kInteger,
          .fallback = fallback,
          .lower = 0,
          .upper = 65536,
          .unit = "tokens",
          .help = "first tokens of a sequence that always stay"};
}

ParameterInfo scope_parameter() {
  return {.name = "scope",
          .kind = ParameterKind::kWord,
          .fallback = "head",
          .words = {{"head", {}, "each KV head keeps its own tokens"},
                    {"layer", {}, "the KV heads of a layer keep the same tokens, by the sum of their ranks"}},
          .help = "who keeps the same tokens"};
}

std::vector<ParameterInfo> ranked_parameters(std::string_view keep_fallback) {
  return {tokens_parameter("keep", keep_fallback, "tokens that stay; up to 1 a share of all seen so far"),
          sinks_parameter("0"),
          optional_tokens_parameter("recent", "0",
                                    "latest tokens that always stay; up to 1 a share of all seen so far"),
          scope_parameter()};
}

ParameterInfo weight_parameter(std::string_view name, std::string_view fallback, std::string_view help) {
  return {.name = name,
          .kind = ParameterKind::kNumber,
          .fallback = fallback,
          .lower = 0,
          .upper = 1e6,
          .help = help};
}

ParameterInfo share_parameter(std::string_view name, std::string_view fallback, std::string_view help) {
  return {.name = name,
          .kind = ParameterKind::kNumber,
          .fallback = fallback,
          .lower = 0,
          .upper = 1,
          .unit = "share",
          .help = help};
}

std::string check_eviction(const Arguments&, const StepPlace& place) { return refuse_dropping(place); }

}  // namespace kva
