// Any bytes as a configuration, YAML and JSON: refused with an InputError of one line, or a tree that can be
// read to its leaves.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "runtime/error.h"
#include "runtime/io/config_tree.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void require_one_line(std::string_view message) {
  require(!message.empty() && message.find('\n') == std::string_view::npos && message.size() < 4000);
}

template <typename Read>
void attempt(Read read) {
  try {
    (void)read();
  } catch (const kva::InputError& error) {
    require_one_line(error.what());
  }
}

void visit(const kva::ConfigNode& node) {
  require(node.line() >= 1);
  attempt([&] { return node.as_text(); });
  attempt([&] { return node.as_bool(); });
  attempt([&] { return node.as_int(-5, 5); });
  attempt([&] { return node.as_number(-5, 5); });
  if (node.is_list())
    for (std::size_t i = 0; i < node.size(); ++i) visit(node.at(i));
  if (node.is_map())
    for (const std::string& key : node.keys())
      if (const auto member = node.find(key)) visit(*member);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);  // so that a read past the end is seen
  constexpr kva::ConfigLimits kLimits = {.max_bytes = 1 << 16, .max_depth = 12, .max_values = 2000};
  for (const auto syntax : {kva::ConfigSyntax::kYaml, kva::ConfigSyntax::kJson})
    attempt([&] { return visit(kva::ConfigNode::parse_text(text, "config", syntax, kLimits)), 0; });
  return 0;
}
