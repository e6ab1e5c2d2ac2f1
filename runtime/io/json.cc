#include "runtime/io/json.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "runtime/error.h"
#include "runtime/io/file.h"

namespace kva {

using nlohmann::json;

struct JsonNode::Document {
  std::string source;
  json root;
};

namespace {

// Builds the document while bounding its depth, the members of an object and, where asked, watching for keys
// given twice: the parser itself does none of these.
template <class Json>
class BoundedSax : public nlohmann::detail::json_sax_dom_parser<Json> {
 public:
  using Base = nlohmann::detail::json_sax_dom_parser<Json>;
  BoundedSax(Json& document, std::string source, const JsonLimits& limits, int64_t max_members)
      : Base(document, true), source_(std::move(source)), limits_(limits), max_members_(max_members) {}

  bool start_object(std::size_t elements) {
    members_.push_back(0);
    if (limits_.unique_keys) keys_.emplace_back();
    return enter() && Base::start_object(elements);
  }
  bool end_object() {
    members_.pop_back();
    if (limits_.unique_keys) keys_.pop_back();
    return --depth_, Base::end_object();
  }
  bool key(std::string& name) {
    if (++members_.back() > max_members_)
      throw InputError(fmt::format("{}: a JSON object with more than {} members", source_, max_members_));
    if (limits_.unique_keys && !keys_.back().insert(name).second)
      throw InputError(
          fmt::format("{}: the key {} is given twice", source_,
                      json(name.substr(0, 100)).dump(-1, ' ', true, json::error_handler_t::replace)));
    return Base::key(name);
  }
  bool start_array(std::size_t elements) { return enter() && Base::start_array(elements); }
  bool end_array() { return --depth_, Base::end_array(); }

  template <class Exception>
  bool parse_error(std::size_t position, const std::string& token, const Exception& error) {
    (void)token;
    std::string_view reason = error.what();
    if (const auto colon = reason.rfind(": "); colon != std::string_view::npos)
      reason.remove_prefix(colon + 2);
    std::string line(reason.substr(0, 120));
    for (char& c : line)
      if (static_cast<unsigned char>(c) < 0x20) c = ' ';
    throw InputError(fmt::format("{}: not valid JSON at byte {}: {}", source_, position, line));
  }

 private:
  bool enter() {
    if (++depth_ > limits_.max_depth)
      throw InputError(fmt::format("{}: JSON nested deeper than {} levels", source_, limits_.max_depth));
    return true;
  }

  std::string source_;
  JsonLimits limits_;
  int depth_ = 0;
  int64_t max_members_;
  std::vector<int64_t> members_;                       // of each open object
  std::vector<std::unordered_set<std::string>> keys_;  // likewise
};

template <class Json>
void parse_bounded(std::string_view text, const std::string& source, const JsonLimits& limits,
                   int64_t max_members, Json& root) {
  if (static_cast<int64_t>(text.size()) > limits.max_bytes)
    throw InputError(fmt::format("{}: expected at most {} bytes of JSON, found {}", source, limits.max_bytes,
                                 text.size()));
  BoundedSax<Json> sax(root, source, limits, max_members);
  try {
    Json::sax_parse(text.begin(), text.end(), &sax);
  } catch (const nlohmann::json::exception& error) {  // a number out of range, say
    throw InputError(fmt::format("{}: not valid JSON: {}", source, error.what()));
  }
}

std::string shortened(const json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return fmt::format("an array of {}", value.size());
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

}  // namespace

JsonNode::JsonNode(std::shared_ptr<const Document> document, const json* node, std::string path)
    : document_(std::move(document)), node_(node), path_(std::move(path)) {}

JsonNode JsonNode::child(const json* node, std::string path) const {
  return {document_, node, std::move(path)};
}

JsonNode JsonNode::parse_file(const std::string& path, const JsonLimits& limits) {
  return parse_text(read_text_file(path, limits.max_bytes), path, limits);
}

JsonNode JsonNode::parse_text(std::string_view text, const std::string& source, const JsonLimits& limits) {
  auto document = std::make_shared<Document>();
  document->source = source;
  parse_bounded(text, source, limits, INT64_MAX, document->root);
  const json* root = &document->root;
  return {std::move(document), root, ""};
}

nlohmann::ordered_json parse_ordered_json(std::string_view text, const std::string& source,
                                          const JsonLimits& limits) {
  constexpr int64_t kMaxMembers = 4096;
  nlohmann::ordered_json root;
  parse_bounded(text, source, limits, kMaxMembers, root);
  return root;
}

const std::string& JsonNode::source() const { return document_->source; }

void JsonNode::fail(const std::string& expected) const {
  throw InputError(fmt::format("{}: {}: expected {}, found {}", source(), path_.empty() ? "top level" : path_,
                               expected, shortened(*node_)));
}

bool JsonNode::has(const std::string& key) const { return find(key).has_value(); }

JsonNode JsonNode::at(const std::string& key) const {
  if (auto found = find(key)) return *found;
  throw InputError(fmt::format("{}: {}: this field is required and missing", source(),
                               path_.empty() ? key : path_ + "." + key));
}

std::optional<JsonNode> JsonNode::find(const std::string& key) const {
  if (!node_->is_object()) fail("an object");
  const auto found = node_->find(key);
  if (found == node_->end() || found->is_null()) return std::nullopt;
  return child(&*found, path_.empty() ? key : path_ + "." + key);
}

std::vector<std::string> JsonNode::keys() const {
  if (!node_->is_object()) fail("an object");
  std::vector<std::string> names;
  for (const auto& item : node_->items()) names.push_back(item.key());
  return names;
}

int64_t JsonNode::size() const {
  if (!node_->is_array()) fail("an array");
  return static_cast<int64_t>(node_->size());
}

JsonNode JsonNode::at(int64_t index) const {
  if (index < 0 || index >= size()) fail(fmt::format("an array with an element {}", index));
  return child(&(*node_)[static_cast<std::size_t>(index)], fmt::format("{}[{}]", path_, index));
}

bool JsonNode::is_null() const { return node_->is_null(); }
bool JsonNode::is_object() const { return node_->is_object(); }
bool JsonNode::is_array() const { return node_->is_array(); }
bool JsonNode::is_string() const { return node_->is_string(); }
bool JsonNode::is_number() const { return node_->is_number(); }
bool JsonNode::is_bool() const { return node_->is_boolean(); }

std::string JsonNode::as_string() const {
  if (!is_string()) fail("a string");
  return node_->get<std::string>();
}

bool JsonNode::as_bool() const {
  if (!is_bool()) fail("true or false");
  return node_->get<bool>();
}

int64_t JsonNode::as_int(int64_t min, int64_t max) const {
  const auto wrong = [&] { fail(fmt::format("a whole number from {} to {}", min, max)); };
  int64_t value = 0;
  if (node_->is_number_unsigned()) {
    const uint64_t unsigned_value = node_->get<uint64_t>();
    if (unsigned_value > static_cast<uint64_t>(INT64_MAX)) wrong();
    value = static_cast<int64_t>(unsigned_value);
  } else if (node_->is_number_integer()) {
    value = node_->get<int64_t>();
  } else {
    wrong();
  }
  if (value < min || value > max) wrong();
  return value;
}

double JsonNode::as_number(double min, double max) const {
  const double value = is_number() ? node_->get<double>() : NAN;
  if (!std::isfinite(value) || value < min || value > max)
    fail(fmt::format("a number from {:g} to {:g}", min, max));
  return value;
}

std::string JsonNode::get_string(const std::string& key, const std::string& fallback) const {
  const auto node = find(key);
  return node ? node->as_string() : fallback;
}

bool JsonNode::get_bool(const std::string& key, bool fallback) const {
  const auto node = find(key);
  return node ? node->as_bool() : fallback;
}

int64_t JsonNode::get_int(const std::string& key, int64_t fallback, int64_t min, int64_t max) const {
  const auto node = find(key);
  return node ? node->as_int(min, max) : fallback;
}

double JsonNode::get_number(const std::string& key, double fallback, double min, double max) const {
  const auto node = find(key);
  return node ? node->as_number(min, max) : fallback;
}

}  // namespace kva
