// What kind of text each token of a vocabulary stands for: what eviction strategies that weigh token classes
// (FastGen, HybridNPercent) go by.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace kva {

class Tokenizer;

enum class TokenClass : uint8_t {
  kSpecial,      // the tokenizer's own: BOS, <|im_end|>
  kPunctuation,  // punctuation and symbols (Unicode P and S), with or without space around them
  kSpace,        // white space, or nothing
  kWord,         // letters, digits and whatever else
};
inline constexpr std::array kTokenClasses = {TokenClass::kSpecial, TokenClass::kPunctuation,
                                             TokenClass::kSpace, TokenClass::kWord};

std::string_view token_class_name(TokenClass of);  // "special", "punctuation", "space", "word"

// The class of a text that is no special token. Ill-formed UTF-8 (a part of a character) is kWord.
TokenClass text_class(std::string_view text);

// Immutable: threads may share it.
class TokenClasses {
 public:
  explicit TokenClasses(std::vector<TokenClass> of_ids) : of_ids_(std::move(of_ids)) {}
  explicit TokenClasses(const Tokenizer& tokenizer);

  // kWord for an id outside the vocabulary: padding rows of the embedding have no text.
  TokenClass of(int32_t id) const {
    return id >= 0 && static_cast<std::size_t>(id) < of_ids_.size() ? of_ids_[static_cast<std::size_t>(id)]
                                                                    : TokenClass::kWord;
  }
  // How many ids of the vocabulary are of the class.
  int64_t count(TokenClass of) const;

 private:
  std::vector<TokenClass> of_ids_;
};

}  // namespace kva
