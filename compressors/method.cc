#include "compressors/method.h"

#include "compressors/argument_value.h"
#include "kernels/check.h"

namespace kva {
namespace {

std::size_t index_of(const MethodInfo& method, std::string_view name) {
  for (std::size_t i = 0; i < method.parameters.size(); ++i)
    if (method.parameters[i].name == name) return i;
  KVA_CHECK(false, "a method asks for a parameter that it has");
}

}  // namespace

std::string_view parameter_kind_name(ParameterKind kind) {
  switch (kind) {
    case ParameterKind::kInteger: return "integer";
    case ParameterKind::kNumber: return "number";
    case ParameterKind::kCountOrShare: return "count or share";
    case ParameterKind::kWord: return "word";
    case ParameterKind::kFlag: return "flag";
  }
  return "?";
}

std::string_view method_kind_name(MethodKind kind) {
  switch (kind) {
    case MethodKind::kFormat: return "format";
    case MethodKind::kTransform: return "transform";
    case MethodKind::kStructure: return "structure";
    case MethodKind::kSetting: return "setting";
  }
  return "?";
}

std::string_view sides_name(Sides sides) {
  switch (sides) {
    case Sides::kBoth: return "keys and values";
    case Sides::kKeys: return "keys";
    case Sides::kValues: return "values";
  }
  return "?";
}

Arguments::Arguments(const MethodInfo& method)
    : method_(&method), values_(method.parameters.size()), given_(method.parameters.size(), false) {
  for (std::size_t i = 0; i < values_.size(); ++i) {
    const ParameterInfo& parameter = method.parameters[i];
    if (parameter.fallback.empty()) continue;
    const auto value = read_value(parameter, parameter.fallback);
    KVA_CHECK(value.has_value(), "a parameter takes its own default");
    values_[i] = *value;
  }
}

void Arguments::give(std::size_t parameter, ArgumentValue value) {
  KVA_CHECK(parameter < values_.size() && !given_[parameter], "a parameter is given once");
  values_[parameter] = value;
  given_[parameter] = true;
}

const ArgumentValue& Arguments::value(std::string_view name) const {
  return values_[index_of(*method_, name)];
}

bool Arguments::given(std::string_view name) const { return given_[index_of(*method_, name)]; }

bool Arguments::has(std::string_view name) const {
  return !std::holds_alternative<std::monostate>(value(name));
}

int64_t Arguments::integer(std::string_view name) const {
  const auto* integer = std::get_if<int64_t>(&value(name));
  KVA_CHECK(integer != nullptr, "the parameter is a whole number");
  return *integer;
}

double Arguments::number(std::string_view name) const {
  if (is_count(name)) return static_cast<double>(integer(name));
  const auto* number = std::get_if<double>(&value(name));
  KVA_CHECK(number != nullptr, "the parameter is a number");
  return *number;
}

bool Arguments::is_count(std::string_view name) const { return std::holds_alternative<int64_t>(value(name)); }

bool Arguments::is_word(std::string_view name) const {
  return std::holds_alternative<std::string_view>(value(name));
}

std::string_view Arguments::word(std::string_view name) const {
  const auto* word = std::get_if<std::string_view>(&value(name));
  KVA_CHECK(word != nullptr, "the parameter is a word");
  return *word;
}

bool Arguments::flag(std::string_view name) const {
  const auto* flag = std::get_if<bool>(&value(name));
  KVA_CHECK(flag != nullptr, "the parameter is a flag");
  return *flag;
}

std::string Arguments::text() const {
  std::string text;
  for (std::size_t i = 0; i < values_.size(); ++i) {
    if (!given_[i]) continue;
    const ParameterInfo& parameter = method_->parameters[i];
    text += text.empty() ? "(" : ",";
    if (i > 0 || !std::holds_alternative<std::string_view>(values_[i]))
      text += std::string(parameter.name) + "=";
    text += value_text(parameter, values_[i]);
  }
  return text.empty() ? text : text + ")";
}

}  // namespace kva
