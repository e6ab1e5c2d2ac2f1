// The tree under ConfigNode, and how its two parsers build it.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/io/config_tree.h"

namespace kva {

struct ConfigNode::Value {
  enum class Kind { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  int line = 1;  // from 1
  std::string text = {};
  bool quoted = false;                 // a text, whatever it looks like
  std::vector<std::string> keys = {};  // of a map
  std::vector<int> key_lines = {};
  std::vector<Value> items = {};  // elements, or the members' values

  int64_t count() const;  // of values, itself included
};

struct ConfigNode::Document {
  std::string source;
  Value root;
};

// Takes the events of a parser, front to back. A map's keys come as scalars, each before its value. Throws
// InputError for what ConfigLimits and ConfigNode::parse_text() refuse.
class ConfigBuilder {
 public:
  using Value = ConfigNode::Value;

  ConfigBuilder(const std::string& source, const ConfigLimits& limits) : source_(source), limits_(limits) {}

  void null(int line, std::size_t anchor = 0);
  void scalar(int line, std::string text, bool quoted, std::size_t anchor = 0);
  void begin_list(int line, std::size_t anchor = 0) { begin(Value::Kind::kList, line, anchor); }
  void begin_map(int line, std::size_t anchor = 0) { begin(Value::Kind::kMap, line, anchor); }
  void end();
  // A copy of the value that an anchor (not 0) named.
  void alias(int line, std::size_t anchor);

  // The whole tree; a null where nothing came.
  Value take();

  [[noreturn]] void fail(int line, const std::string& message) const;

 private:
  struct Open {
    Value value;
    std::size_t anchor = 0;
    bool has_key = false;  // a key waits for its value
  };

  void begin(Value::Kind kind, int line, std::size_t anchor);
  void count(int line, int64_t values);
  void add(Value value, std::size_t anchor);
  void add_key(const Value& key);

  const std::string& source_;
  ConfigLimits limits_;
  std::vector<Open> open_;
  std::map<std::size_t, Value> anchors_;
  Value root_;
  bool complete_ = false;
  int64_t values_ = 0;
};

void parse_config_yaml(std::string_view text, ConfigBuilder& builder);
void parse_config_json(std::string_view text, ConfigBuilder& builder);

}  // namespace kva
