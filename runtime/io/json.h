// Reading JSON that a stranger wrote: bounded size and depth, valid UTF-8, and typed getters whose errors
// name the file, the field, what was expected and what was found.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kva {

struct JsonLimits {
  int64_t max_bytes = 256 << 20;
  int max_depth = 64;
  bool unique_keys = false;  // refuse an object that gives a key twice; else its last value counts
};

// A node of a parsed document together with its path, "rope_scaling.factor" say. Copies are cheap; a node
// keeps its document alive. All getters throw InputError.
class JsonNode {
 public:
  static JsonNode parse_file(const std::string& path, const JsonLimits& limits = {});
  // `source` names the text in errors.
  static JsonNode parse_text(std::string_view text, const std::string& source, const JsonLimits& limits = {});

  // Members of an object. has() is false for null members too.
  bool has(const std::string& key) const;
  JsonNode at(const std::string& key) const;  // required
  std::optional<JsonNode> find(const std::string& key) const;
  std::vector<std::string> keys() const;
  // Elements of an array.
  int64_t size() const;
  JsonNode at(int64_t index) const;

  bool is_null() const;
  bool is_object() const;
  bool is_array() const;
  bool is_string() const;
  bool is_number() const;
  bool is_bool() const;

  std::string as_string() const;
  bool as_bool() const;
  int64_t as_int(int64_t min, int64_t max) const;  // a whole number within [min, max]
  double as_number(double min, double max) const;  // finite, within [min, max]

  // Shorthands: the member's value, or the fallback where it is absent or null.
  std::string get_string(const std::string& key, const std::string& fallback) const;
  bool get_bool(const std::string& key, bool fallback) const;
  int64_t get_int(const std::string& key, int64_t fallback, int64_t min, int64_t max) const;
  double get_number(const std::string& key, double fallback, double min, double max) const;

  // Throws InputError "<file>: <path>: expected <expected>, found <this value, shortened>".
  [[noreturn]] void fail(const std::string& expected) const;

  const std::string& source() const;
  const std::string& path() const { return path_; }
  const nlohmann::json& raw() const { return *node_; }

 private:
  struct Document;
  JsonNode(std::shared_ptr<const Document> document, const nlohmann::json* node, std::string path);
  JsonNode child(const nlohmann::json* node, std::string path) const;

  std::shared_ptr<const Document> document_;
  const nlohmann::json* node_;
  std::string path_;
};

// A document whose members keep their order, under the same bounds and with the same errors; an object may
// have at most 4,096 members, since finding one of them takes time in proportion.
nlohmann::ordered_json parse_ordered_json(std::string_view text, const std::string& source,
                                          const JsonLimits& limits = {});

}  // namespace kva
