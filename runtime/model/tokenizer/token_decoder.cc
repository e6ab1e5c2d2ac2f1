#include "runtime/model/tokenizer/token_decoder.h"

#include <fmt/format.h>

#include "runtime/io/utf8.h"
#include "runtime/model/tokenizer/byte_alphabet.h"

namespace kva::tok {
namespace {

constexpr std::size_t kMaxReplacements = 32;

class RulesReader {
 public:
  void add(const JsonNode& node) {
    const std::string type = node.at("type").as_string();
    if (type == "Sequence") {
      const JsonNode list = node.at("decoders");
      for (int64_t i = 0; i < list.size(); ++i) add(list.at(i));
    } else if (type == "ByteLevel") {
      rules.byte_level = true;
    } else if (type == "ByteFallback") {
      rules.byte_fallback = true;
    } else if (type == "Fuse") {
      fused_ = true;
    } else if (type == "Metaspace") {
      add_metaspace(node);
    } else if (type == "Replace") {
      add_replacement(node, node.at("pattern").at("String").as_string(), node.at("content").as_string());
    } else if (type == "Strip") {
      add_strip(node);
    } else {
      node.at("type").fail("ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip or Sequence");
    }
  }

  DecoderRules rules;

 private:
  void add_replacement(const JsonNode& node, std::string text, std::string content) {
    // A token's text is replaced token by token: the other orders give other texts.
    if (fused_ || rules.byte_level || text.empty() || content.size() > text.size())
      node.fail("Replace of a text by one no longer than it, before Fuse and without ByteLevel");
    if (rules.replacements.size() == kMaxReplacements)
      node.fail(fmt::format("at most {} of these", kMaxReplacements));
    rules.replacements.push_back({std::move(text), std::move(content)});
  }

  void add_metaspace(const JsonNode& node) {
    add_replacement(node, node.at("replacement").as_string(), " ");
    const std::string fallback = node.get_bool("add_prefix_space", true) ? "always" : "never";
    if (node.get_string("prepend_scheme", fallback) != "never") rules.strip_first_space = true;
  }

  void add_strip(const JsonNode& node) {
    const int64_t start = node.get_int("start", 0, 0, 1);
    const bool is_space = node.at("content").as_string() == " ";
    if (!fused_ || !is_space || node.get_int("stop", 0, 0, 1) != 0)
      node.fail("Strip of one space at the start, behind Fuse");
    rules.strip_first_space = rules.strip_first_space || start == 1;
  }

  bool fused_ = false;
};

// The byte of "<0x0A>", or -1.
int fallback_byte(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  int value = 0;
  for (const char c : text.substr(3, 2)) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && !(c >= 'A' && c <= 'F')) return -1;
    value = value * 16 + (digit ? c - '0' : c - 'A' + 10);
  }
  return value;
}

std::string replace_all(std::string_view text, const DecoderRules::Replacement& rule) {
  std::string out;
  while (true) {
    const std::size_t at = text.find(rule.text);
    out += text.substr(0, at);
    if (at == std::string_view::npos) return out;
    out += rule.content;
    text.remove_prefix(at + rule.text.size());
  }
}

std::string token_bytes(const DecoderRules& rules, std::string_view text) {
  std::string bytes;
  if (rules.byte_level && byte_alphabet().to_bytes(text, bytes)) return bytes;
  bytes = text;
  for (const auto& rule : rules.replacements) bytes = replace_all(bytes, rule);
  if (const int byte = rules.byte_fallback ? fallback_byte(bytes) : -1; byte >= 0)
    return std::string(1, static_cast<char>(byte));
  return bytes;
}

}  // namespace

DecoderRules DecoderRules::read(const JsonNode& node) {
  RulesReader reader;
  reader.add(node);
  return reader.rules;
}

TokenDecoder::TokenDecoder(const DecoderRules& rules, const Vocabulary& vocabulary,
                           const std::vector<AddedToken>& added)
    : bytes_(static_cast<std::size_t>(vocabulary.size())), strip_first_space_(rules.strip_first_space) {
  for (int32_t id = 0; id < vocabulary.size(); ++id)
    bytes_[static_cast<std::size_t>(id)] = token_bytes(rules, vocabulary.text(id));
  for (const AddedToken& token : added) {
    const auto index = static_cast<std::size_t>(token.id);
    if (index >= bytes_.size()) bytes_.resize(index + 1);
    bytes_[index] = token.content;
  }
}

std::string_view TokenDecoder::bytes(int32_t id) const {
  if (id < 0 || static_cast<std::size_t>(id) >= bytes_.size()) return {};
  return bytes_[static_cast<std::size_t>(id)];
}

}  // namespace kva::tok
