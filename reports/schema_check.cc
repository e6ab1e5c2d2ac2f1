#include "reports/schema_check.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "kernels/check.h"
#include "reports/text_format.h"
#include "runtime/error.h"

namespace kva {
namespace {

using Json = nlohmann::ordered_json;

bool is_whole(const Json& value) {
  return value.is_number_integer() ||
         (value.is_number_float() && std::trunc(value.get<double>()) == value.get<double>());
}

bool has_type(const Json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "integer") return is_whole(value);
  if (type == "number") return value.is_number();
  KVA_CHECK(false, "unknown type in a schema");
  return false;
}

std::string with_article(const std::string& type) {
  if (type == "null") return type;
  return (type == "object" || type == "array" || type == "integer" ? "an " : "a ") + type;
}

std::string shown(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return fmt::format("an array of {}", value.size());
  return one_line(value.dump(-1, ' ', false, Json::error_handler_t::replace), 60);
}

std::size_t characters(const std::string& text) {
  std::size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
  return count;
}

class Checker {
 public:
  Checker(const Json& root, const std::string& source) : root_(root), source_(source) {}

  void check(const Json& value, const Json& schema, const std::string& path) const {
    for (const auto& [keyword, rule] : schema.items()) {
      if (keyword == "$ref") {
        check(value, resolve(rule.get_ref<const std::string&>()), path);
      } else if (keyword == "type") {
        check_type(value, rule, path);
      } else if (keyword == "const") {
        if (value != rule) fail(path, shown(rule), value);
      } else if (keyword == "enum") {
        check_enum(value, rule, path);
      } else if (keyword == "if") {
        check_branch(value, schema, path);
      } else if (!check_bound(value, keyword, rule, path) &&
                 !check_members(value, schema, keyword, rule, path)) {
        const bool taken_with_if = schema.contains("if") && (keyword == "then" || keyword == "else");
        const bool annotation = taken_with_if || keyword == "$schema" || keyword == "$id" ||
                                keyword == "$defs" || keyword == "title" || keyword == "description";
        KVA_CHECK(annotation, "a schema keyword that check_schema does not know");
      }
    }
  }

 private:
  [[noreturn]] void fail(const std::string& path, const std::string& expected, const Json& found) const {
    throw InputError(fmt::format("{}: {}: expected {}, found {}", source_,
                                 path.empty() ? "top level" : one_line(path), expected, shown(found)));
  }

  const Json& resolve(const std::string& reference) const {
    const std::string prefix = "#/$defs/";
    KVA_CHECK(reference.rfind(prefix, 0) == 0, "only references into $defs are known");
    return root_.at("$defs").at(reference.substr(prefix.size()));
  }

  void check_branch(const Json& value, const Json& schema, const std::string& path) const {
    bool holds = true;
    try {
      check(value, schema.at("if"), path);
    } catch (const InputError&) {
      holds = false;
    }
    const auto branch = schema.find(holds ? "then" : "else");
    if (branch != schema.end()) check(value, *branch, path);
  }

  void check_type(const Json& value, const Json& rule, const std::string& path) const {
    const Json types = rule.is_array() ? rule : Json::array({rule});
    std::string names;
    for (const Json& type : types) {
      if (has_type(value, type.get_ref<const std::string&>())) return;
      names += (names.empty() ? "" : " or ") + with_article(type.get<std::string>());
    }
    fail(path, names, value);
  }

  void check_enum(const Json& value, const Json& rule, const std::string& path) const {
    std::string names;
    for (const Json& allowed : rule) {
      if (value == allowed) return;
      names += (names.empty() ? "" : ", ") + shown(allowed);
    }
    fail(path, "one of " + names, value);
  }

  bool check_bound(const Json& value, const std::string& keyword, const Json& rule,
                   const std::string& path) const {
    if (keyword == "minimum" || keyword == "maximum") {
      if (!value.is_number()) return true;
      const bool wrong = keyword == "minimum" ? value.get<double>() < rule.get<double>()
                                              : value.get<double>() > rule.get<double>();
      if (wrong)
        fail(path, fmt::format("{} {}", keyword == "minimum" ? "at least" : "at most", shown(rule)), value);
    } else if (keyword == "minLength" || keyword == "maxLength") {
      if (!value.is_string()) return true;
      check_size(characters(value.get_ref<const std::string&>()), keyword, rule, path, "characters");
    } else if (keyword == "minItems" || keyword == "maxItems") {
      if (value.is_array()) check_size(value.size(), keyword, rule, path, "elements");
    } else if (keyword == "maxProperties") {
      if (value.is_object()) check_size(value.size(), keyword, rule, path, "members");
    } else {
      return false;
    }
    return true;
  }

  void check_size(std::size_t size, const std::string& keyword, const Json& rule, const std::string& path,
                  const char* what) const {
    const bool least = keyword[1] == 'i';  // minLength, minItems
    const auto bound = rule.get<std::size_t>();
    if (least ? size >= bound : size <= bound) return;
    throw InputError(fmt::format("{}: {}: expected at {} {} {}, found {}", source_, one_line(path),
                                 least ? "least" : "most", bound, what, size));
  }

  bool check_members(const Json& value, const Json& schema, const std::string& keyword, const Json& rule,
                     const std::string& path) const {
    const auto below = [&](const std::string& key) { return path.empty() ? key : path + "." + key; };
    if (keyword == "required") {
      if (!value.is_object()) return true;
      for (const Json& key : rule)
        if (!value.contains(key.get_ref<const std::string&>()))
          throw InputError(fmt::format("{}: {}: this field is required and missing", source_,
                                       one_line(below(key.get<std::string>()))));
    } else if (keyword == "properties") {
      if (!value.is_object()) return true;
      for (const auto& [key, member] : rule.items())
        if (const auto found = value.find(key); found != value.end()) check(*found, member, below(key));
    } else if (keyword == "additionalProperties") {
      if (!value.is_object()) return true;
      for (const auto& [key, member] : value.items())
        if (!schema.contains("properties") || !schema.at("properties").contains(key))
          check(member, rule, below(key));
    } else if (keyword == "items") {
      if (!value.is_array()) return true;
      for (std::size_t i = 0; i < value.size(); ++i) check(value[i], rule, fmt::format("{}[{}]", path, i));
    } else {
      return false;
    }
    return true;
  }

  const Json& root_;
  const std::string& source_;
};

}  // namespace

void check_schema(const nlohmann::ordered_json& document, const nlohmann::ordered_json& schema,
                  const std::string& source) {
  Checker(schema, source).check(document, schema, "");
}

}  // namespace kva
