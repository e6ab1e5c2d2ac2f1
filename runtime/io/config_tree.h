// A configuration that a person wrote, YAML or JSON, as one tree in which every value knows the line it
// stands on: so that a mistake can be named by file, line and field.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kva {

struct ConfigLimits {
  int64_t max_bytes = 8 << 20;
  int max_depth = 24;
  // Values, those that a YAML alias repeats counted every time.
  int64_t max_values = 200000;
};

enum class ConfigSyntax { kYaml, kJson };

// A value of a parsed file together with its path, "experiments[1].limit" say. Copies are cheap; a node keeps
// its document alive. All functions that can fail throw InputError "<file>:<line>: <path>: expected ...,
// found
// ...", on one line.
class ConfigNode {
 public:
  // JSON where the file is named .json, else YAML; other documents of a YAML file are refused, as are keys
  // given twice, keys that are no scalars, and tags.
  static ConfigNode parse_file(const std::string& path, const ConfigLimits& limits = {});
  // `source` names the text in errors.
  static ConfigNode parse_text(std::string_view text, const std::string& source, ConfigSyntax syntax,
                               const ConfigLimits& limits = {});

  bool is_null() const;
  bool is_scalar() const;
  bool is_list() const;
  bool is_map() const;

  // Members of a map, in the order of the file.
  const std::vector<std::string>& keys() const;
  int key_line(std::size_t index) const;
  // Nothing too where the member is null.
  std::optional<ConfigNode> find(std::string_view key) const;
  // Elements of a list.
  std::size_t size() const;
  ConfigNode at(std::size_t index) const;

  const std::string& scalar() const;  // as it is written
  std::string as_text() const;  // not empty; in quotes where it would else be a number, true, false or null
  bool as_bool() const;
  int64_t as_int(int64_t min, int64_t max) const;
  double as_number(double min, double max) const;

  // `hint`, "; put it in quotes" say, ends the line.
  [[noreturn]] void fail(const std::string& expected, const std::string& hint = "") const;
  // The same of something else that stands here: "<file>:<line>: <path>: <message>".
  [[noreturn]] void fail_with(const std::string& message) const;

  const std::string& source() const;
  const std::string& path() const { return path_; }
  int line() const;

  struct Value;     // of the tree
  struct Document;  // source and root

 private:
  ConfigNode(std::shared_ptr<const Document> document, const Value* value, std::string path);

  std::shared_ptr<const Document> document_;
  const Value* value_;
  std::string path_;
};

}  // namespace kva
