// Added tokens: texts such as <|im_start|> that are cut out of the text before anything else is done to it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "runtime/io/json.h"
#include "runtime/model/tokenizer/normalizer.h"

namespace kva::tok {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false;      // skipped when special tokens are not to be decoded
  bool normalized = false;   // looked for in normalized text
  bool left_strip = false;   // takes the white space before it
  bool right_strip = false;  // takes the white space behind it
  bool single_word = false;  // not inside a word
};

// One entry of "added_tokens"; `id` is given apart because tokenizer_config.json keeps it as the key.
AddedToken read_added_token(const JsonNode& node, int64_t id);

class AddedTokens {
 public:
  AddedTokens() = default;
  // Tokens with empty content are never found. Throws InputError where the texts are too long in all.
  AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer, const std::string& where);

  // The leftmost-longest matches of one pass (normalized tokens, or the others) and the text between, in
  // order: exactly one of `text` (not empty) and `token` is given. parse_special = false leaves special
  // tokens in the text.
  using Sink = std::function<void(std::string_view text, const AddedToken* token)>;
  void cut(std::string_view text, bool normalized, bool parse_special, const Sink& sink) const;

  const std::vector<AddedToken>& tokens() const { return tokens_; }
  bool is_special(int32_t id) const { return special_ids_.contains(id); }

 private:
  // A trie over bytes: node 0 is its root.
  struct Trie {
    std::unordered_map<uint64_t, uint32_t> edges;  // node << 8 | byte
    std::unordered_map<uint32_t, std::size_t> ends;
    uint32_t nodes = 1;
    bool starts[256] = {};

    void add(std::string_view text, std::size_t token);
    // Index of the longest token that `text` starts with, and its bytes; false for none.
    bool longest(std::string_view text, std::size_t& token, std::size_t& bytes) const;
  };

  std::vector<AddedToken> tokens_;
  std::unordered_set<int32_t> special_ids_;
  Trie raw_;
  Trie normalized_;
};

}  // namespace kva::tok
