#include "runtime/model/tokenizer/read_pattern.h"

namespace kva::tok {

std::string where_of(const JsonNode& node) { return node.source() + ": " + node.path(); }

Pattern read_pattern(const JsonNode& node) {
  if (const auto regex = node.find("Regex")) return Pattern::regex(regex->as_string(), where_of(*regex));
  if (const auto text = node.find("String")) return Pattern::literal(text->as_string(), where_of(*text));
  node.fail("an object with String or Regex");
}

}  // namespace kva::tok
