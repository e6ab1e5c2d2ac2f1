#include "runtime/model/tokenizer/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/error.h"
#include "runtime/model/tokenizer/pattern.h"
#include "runtime/model/tokenizer/vocabulary.h"

namespace kva::tok {
namespace {

constexpr std::size_t kMaxContentBytes = 16 << 20;

// A word's characters as Unicode TR18 has them; PCRE2's \w leaves out marks and takes more numbers.
constexpr std::string_view kWord = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}]";

struct EdgePatterns {
  Pattern word_start = Pattern::regex(fmt::format("\\A{}", kWord), "added tokens");
  Pattern word_end = Pattern::regex(fmt::format("{}\\z", kWord), "added tokens");
  Pattern space_start = Pattern::regex("\\A\\s+", "added tokens");
  Pattern space = Pattern::regex("\\A\\s\\z", "added tokens");
};

const EdgePatterns& edge_patterns() {
  static const EdgePatterns patterns;
  return patterns;
}

// Where the last character of `text` (not empty) begins.
std::size_t last_character(std::string_view text) {
  std::size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool ends_with_word(std::string_view text) {
  Match match;
  return !text.empty() && edge_patterns().word_end.find(text.substr(last_character(text)), 0, match);
}

bool starts_with_word(std::string_view text) {
  Match match;
  return edge_patterns().word_start.find(text, 0, match);
}

std::size_t spaces_at_start(std::string_view text) {
  Match match;
  return edge_patterns().space_start.find(text, 0, match) ? match.end : 0;
}

std::size_t spaces_at_end(std::string_view text) {
  const std::size_t whole = text.size();
  Match match;
  while (!text.empty()) {
    const std::size_t at = last_character(text);
    if (!edge_patterns().space.find(text.substr(at), 0, match)) break;
    text = text.substr(0, at);
  }
  return whole - text.size();
}

}  // namespace

AddedToken read_added_token(const JsonNode& node, int64_t id) {
  AddedToken token;
  token.content = node.at("content").as_string();
  token.id = static_cast<int32_t>(id);
  token.special = node.get_bool("special", false);
  token.normalized = node.get_bool("normalized", !token.special);
  token.left_strip = node.get_bool("lstrip", false);
  token.right_strip = node.get_bool("rstrip", false);
  token.single_word = node.get_bool("single_word", false);
  return token;
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer,
                         const std::string& where)
    : tokens_(std::move(tokens)) {
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    if (token.special) special_ids_.insert(token.id);
    const std::string content = token.normalized ? normalizer.apply(token.content) : token.content;
    bytes += content.size();
    if (bytes > kMaxContentBytes)
      throw InputError(fmt::format("{}: expected added tokens of at most {} bytes in all, found more", where,
                                   kMaxContentBytes));
    if (!content.empty()) (token.normalized ? normalized_ : raw_).add(content, i);
  }
}

void AddedTokens::Trie::add(std::string_view text, std::size_t token) {
  starts[static_cast<uint8_t>(text[0])] = true;
  uint32_t node = 0;
  for (const char byte : text) {
    const auto [edge, is_new] = edges.try_emplace((uint64_t{node} << 8) | static_cast<uint8_t>(byte), nodes);
    if (is_new) ++nodes;
    node = edge->second;
  }
  ends.try_emplace(node, token);
}

bool AddedTokens::Trie::longest(std::string_view text, std::size_t& token, std::size_t& bytes) const {
  uint32_t node = 0;
  bool found = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto edge = edges.find((uint64_t{node} << 8) | static_cast<uint8_t>(text[i]));
    if (edge == edges.end()) break;
    node = edge->second;
    if (const auto end = ends.find(node); end != ends.end()) {
      found = true;
      token = end->second;
      bytes = i + 1;
    }
  }
  return found;
}

void AddedTokens::cut(std::string_view text, bool normalized, bool parse_special, const Sink& sink) const {
  const Trie& trie = normalized ? normalized_ : raw_;
  std::size_t done = 0;
  std::size_t at = 0;
  while (at < text.size()) {
    std::size_t index = 0;
    std::size_t bytes = 0;
    if (!trie.starts[static_cast<uint8_t>(text[at])] || !trie.longest(text.substr(at), index, bytes)) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[index];
    std::size_t begin = at;
    std::size_t end = at + bytes;
    at = end;
    if (token.special && !parse_special) continue;
    if (token.single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end))))
      continue;
    if (token.left_strip) begin = std::max(done, begin - spaces_at_end(text.substr(0, begin)));
    if (token.right_strip) end += spaces_at_start(text.substr(end));
    if (begin > done) sink(text.substr(done, begin - done), nullptr);
    sink({}, &token);
    done = end;
    // White space that this token took may not begin another.
    at = std::max(at, end);
  }
  if (done < text.size()) sink(text.substr(done), nullptr);
}

}  // namespace kva::tok
