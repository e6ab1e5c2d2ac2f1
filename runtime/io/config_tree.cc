#include "runtime/io/config_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "kernels/check.h"
#include "runtime/error.h"
#include "runtime/io/config_value.h"
#include "runtime/io/file.h"
#include "runtime/io/utf8.h"

namespace kva {
namespace {

using Kind = ConfigNode::Value::Kind;

// Only what is a number as a whole.
std::optional<double> number_of(const std::string& text) {
  if (text.empty() || text.find_first_not_of("0123456789+-.eE") != std::string::npos) return std::nullopt;
  double value = 0;
  const char* first = text.data() + (text.front() == '+' ? 1 : 0);
  const auto [end, error] = std::from_chars(first, text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool is_json_name(const std::string& path) {
  return path.size() >= 5 && path.compare(path.size() - 5, 5, ".json") == 0;
}

}  // namespace

ConfigNode::ConfigNode(std::shared_ptr<const Document> document, const Value* value, std::string path)
    : document_(std::move(document)), value_(value), path_(std::move(path)) {}

ConfigNode ConfigNode::parse_file(const std::string& path, const ConfigLimits& limits) {
  return parse_text(read_text_file(path, limits.max_bytes), path,
                    is_json_name(path) ? ConfigSyntax::kJson : ConfigSyntax::kYaml, limits);
}

ConfigNode ConfigNode::parse_text(std::string_view text, const std::string& source, ConfigSyntax syntax,
                                  const ConfigLimits& limits) {
  if (static_cast<int64_t>(text.size()) > limits.max_bytes)
    throw InputError(
        fmt::format("{}: expected at most {} bytes, found {}", source, limits.max_bytes, text.size()));
  const auto line_at = [&](std::size_t offset) {
    return 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(offset), '\n');
  };
  if (const auto bad = first_invalid_utf8(text))
    throw InputError(fmt::format("{}:{}: expected UTF-8, found byte 0x{:02x}", source, line_at(*bad),
                                 static_cast<unsigned char>(text[*bad])));
  if (const auto zero = text.find('\0'); zero != std::string_view::npos)
    throw InputError(fmt::format("{}:{}: expected text, found a zero byte: is this a binary file?", source,
                                 line_at(zero)));
  auto document = std::make_shared<Document>();
  document->source = source;
  ConfigBuilder builder(document->source, limits);
  if (syntax == ConfigSyntax::kJson)
    parse_config_json(text, builder);
  else
    parse_config_yaml(text, builder);
  document->root = builder.take();
  const Value* root = &document->root;
  return {std::move(document), root, ""};
}

bool ConfigNode::is_null() const { return value_->kind == Kind::kNull; }
bool ConfigNode::is_scalar() const { return value_->kind == Kind::kScalar; }
bool ConfigNode::is_list() const { return value_->kind == Kind::kList; }
bool ConfigNode::is_map() const { return value_->kind == Kind::kMap; }

const std::vector<std::string>& ConfigNode::keys() const {
  if (!is_map()) fail("fields and their values");
  return value_->keys;
}

int ConfigNode::key_line(std::size_t index) const { return value_->key_lines[index]; }

std::optional<ConfigNode> ConfigNode::find(std::string_view key) const {
  const auto at = std::find(keys().begin(), keys().end(), key);
  if (at == keys().end()) return std::nullopt;
  const Value& value = value_->items[static_cast<std::size_t>(at - keys().begin())];
  if (value.kind == Kind::kNull) return std::nullopt;
  return ConfigNode(document_, &value, path_.empty() ? *at : path_ + "." + *at);
}

std::size_t ConfigNode::size() const {
  if (!is_list()) fail("a list");
  return value_->items.size();
}

ConfigNode ConfigNode::at(std::size_t index) const {
  KVA_CHECK(index < size(), "an element of the list");
  return {document_, &value_->items[index], fmt::format("{}[{}]", path_, index)};
}

const std::string& ConfigNode::scalar() const {
  if (!is_scalar()) fail("a number or a word");
  return value_->text;
}

std::string ConfigNode::as_text() const {
  if (!is_scalar() || value_->text.empty()) fail("text");
  const std::string& text = value_->text;
  if (!value_->quoted && (text == "true" || text == "false" || number_of(text)))
    fail("text", "; put it in quotes where a text is meant");
  return text;
}

bool ConfigNode::as_bool() const {
  if (is_scalar() && !value_->quoted && (value_->text == "true" || value_->text == "false"))
    return value_->text == "true";
  fail("true or false");
}

int64_t ConfigNode::as_int(int64_t min, int64_t max) const {
  const std::string expected = fmt::format("a whole number from {} to {}", min, max);
  if (!is_scalar() || value_->quoted) fail(expected);
  const std::string& text = value_->text;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < min || value > max) fail(expected);
  return value;
}

double ConfigNode::as_number(double min, double max) const {
  const std::string expected = fmt::format("a number from {:g} to {:g}", min, max);
  if (!is_scalar() || value_->quoted) fail(expected);
  const auto value = number_of(value_->text);
  if (!value || !std::isfinite(*value) || *value < min || *value > max) fail(expected);
  return *value;
}

void ConfigNode::fail(const std::string& expected, const std::string& hint) const {
  std::string found;
  switch (value_->kind) {
    case Kind::kNull: found = "nothing"; break;
    case Kind::kScalar: found = quoted_for_error(value_->text); break;
    case Kind::kList: found = fmt::format("a list of {}", value_->items.size()); break;
    case Kind::kMap:
      found = value_->keys.empty() ? "no fields" : "the field " + quoted_for_error(value_->keys[0]);
      break;
  }
  fail_with(fmt::format("expected {}, found {}{}", expected, found, hint));
}

void ConfigNode::fail_with(const std::string& message) const {
  throw InputError(fmt::format("{}:{}: {}{}", source(), line(), path_.empty() ? "" : path_ + ": ", message));
}

const std::string& ConfigNode::source() const { return document_->source; }
int ConfigNode::line() const { return value_->line; }

}  // namespace kva
