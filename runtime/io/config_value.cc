#include "runtime/io/config_value.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "kernels/check.h"
#include "runtime/error.h"
#include "runtime/io/utf8.h"

namespace kva {
namespace {

using Value = ConfigNode::Value;

constexpr std::size_t kMaxFields = 512;  // of one map

// A parser's own words, on one line.
std::string one_reason(std::string_view reason) {
  std::string line(reason.substr(0, 120));
  for (char& c : line)
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  return line;
}

class YamlEvents : public YAML::EventHandler {
 public:
  explicit YamlEvents(ConfigBuilder& builder) : builder_(builder) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0) builder_.fail(mark.line + 1, "expected one document, found a second");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    builder_.null(mark.line + 1, anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    builder_.alias(mark.line + 1, anchor);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    const bool quoted = tag == "!";  // so yaml-cpp marks texts in quotes and blocks
    if (!quoted) check_tag(mark, tag);
    if (!quoted && (value.empty() || value == "~" || value == "null"))
      builder_.null(mark.line + 1, anchor);
    else
      builder_.scalar(mark.line + 1, value, quoted, anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    builder_.begin_list(mark.line + 1, anchor);
  }
  void OnSequenceEnd() override { builder_.end(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check_tag(mark, tag);
    builder_.begin_map(mark.line + 1, anchor);
  }
  void OnMapEnd() override { builder_.end(); }

 private:
  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (tag != "?" && !tag.empty())
      builder_.fail(mark.line + 1, "expected no tag, found " + quoted_for_error(tag));
  }

  ConfigBuilder& builder_;
  int documents_ = 0;
};

// Characters of a JSON text that know how many lines are behind them.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, int* line, const char** last) : at_(at), line_(line), last_(last) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    // A line ends when the character after its end is reached: what stands before it is still on it.
    if (*last_ != nullptr && **last_ == '\n') ++*line_;
    *last_ = at_++;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  int* line_;
  const char** last_;
};

class JsonEvents : public nlohmann::json_sax<nlohmann::json> {
 public:
  JsonEvents(ConfigBuilder& builder, const int& line) : builder_(builder), line_(line) {}

  bool null() override { return builder_.null(line_), true; }
  bool boolean(bool value) override { return plain(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { return plain(std::to_string(value)); }
  bool number_unsigned(number_unsigned_t value) override { return plain(std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { return plain(text); }
  bool string(string_t& text) override { return builder_.scalar(line_, text, true), true; }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return builder_.begin_map(line_), true; }
  bool key(string_t& text) override { return builder_.scalar(line_, text, true), true; }
  bool end_object() override { return builder_.end(), true; }
  bool start_array(std::size_t) override { return builder_.begin_list(line_), true; }
  bool end_array() override { return builder_.end(), true; }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& error) override {
    std::string_view reason = error.what();
    if (const auto colon = reason.rfind(": "); colon != std::string_view::npos)
      reason.remove_prefix(colon + 2);
    builder_.fail(line_, "expected JSON, found an error: " + one_reason(reason));
  }

 private:
  bool plain(const std::string& text) { return builder_.scalar(line_, text, false), true; }

  ConfigBuilder& builder_;
  const int& line_;
};

}  // namespace

int64_t Value::count() const {
  int64_t values = 1;
  for (const Value& item : items) values += item.count();
  return values;
}

void ConfigBuilder::fail(int line, const std::string& message) const {
  throw InputError(fmt::format("{}:{}: {}", source_, line, message));
}

void ConfigBuilder::null(int line, std::size_t anchor) {
  count(line, 1);
  add({.kind = Value::Kind::kNull, .line = line}, anchor);
}

void ConfigBuilder::scalar(int line, std::string text, bool quoted, std::size_t anchor) {
  count(line, 1);
  add({.kind = Value::Kind::kScalar, .line = line, .text = std::move(text), .quoted = quoted}, anchor);
}

void ConfigBuilder::begin(Value::Kind kind, int line, std::size_t anchor) {
  count(line, 1);
  if (static_cast<int>(open_.size()) >= limits_.max_depth)
    fail(line, fmt::format("expected at most {} levels, found more", limits_.max_depth));
  if (!open_.empty() && open_.back().value.kind == Value::Kind::kMap && !open_.back().has_key)
    fail(line, "expected the name of a field, found a list or fields");
  open_.push_back({.value = {.kind = kind, .line = line}, .anchor = anchor});
}

void ConfigBuilder::end() {
  KVA_CHECK(!open_.empty() && !open_.back().has_key, "every list and map begins, every key has a value");
  Open closed = std::move(open_.back());
  open_.pop_back();
  add(std::move(closed.value), closed.anchor);
}

void ConfigBuilder::alias(int line, std::size_t anchor) {
  const auto named = anchors_.find(anchor);
  if (named == anchors_.end()) fail(line, "expected an alias of something before it, found one of itself");
  count(line, named->second.count());
  Value copy = named->second;
  copy.line = line;
  add(std::move(copy), 0);
}

void ConfigBuilder::count(int line, int64_t values) {
  values_ += values;
  if (values_ > limits_.max_values)
    fail(line, fmt::format("expected at most {} values, found more", limits_.max_values));
}

void ConfigBuilder::add(Value value, std::size_t anchor) {
  if (anchor != 0) anchors_.insert_or_assign(anchor, value);
  if (open_.empty()) {
    KVA_CHECK(!complete_, "one value at the top");
    root_ = std::move(value);
    complete_ = true;
    return;
  }
  Open& parent = open_.back();
  if (parent.value.kind == Value::Kind::kMap && !parent.has_key) return add_key(value);
  parent.value.items.push_back(std::move(value));
  parent.has_key = false;
}

void ConfigBuilder::add_key(const Value& key) {
  Open& map = open_.back();
  if (key.kind != Value::Kind::kScalar) fail(key.line, "expected the name of a field, found none");
  if (map.value.keys.size() >= kMaxFields)
    fail(key.line, fmt::format("expected at most {} fields, found more", kMaxFields));
  const auto before = std::find(map.value.keys.begin(), map.value.keys.end(), key.text);
  if (before != map.value.keys.end())
    fail(key.line,
         fmt::format("{}: expected each field once, found it on line {} too", quoted_for_error(key.text),
                     map.value.key_lines[static_cast<std::size_t>(before - map.value.keys.begin())]));
  map.value.keys.push_back(key.text);
  map.value.key_lines.push_back(key.line);
  map.has_key = true;
}

Value ConfigBuilder::take() { return std::move(root_); }

void parse_config_yaml(std::string_view text, ConfigBuilder& builder) {
  std::istringstream stream{std::string(text)};
  YamlEvents events(builder);
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(events)) {
    }
  } catch (const YAML::Exception& error) {
    builder.fail(std::max(1, error.mark.line + 1), "expected YAML, found an error: " + one_reason(error.msg));
  }
}

void parse_config_json(std::string_view text, ConfigBuilder& builder) {
  int line = 1;
  const char* last = nullptr;
  JsonEvents events(builder, line);
  const char* end = text.data() + text.size();
  try {
    nlohmann::json::sax_parse(CountingIterator(text.data(), &line, &last),
                              CountingIterator(end, &line, &last), &events);
  } catch (const nlohmann::json::exception& error) {  // a number out of range, say
    builder.fail(line, "expected JSON, found an error: " + one_reason(error.what()));
  }
}

}  // namespace kva
