// The decoder of a tokenizer.json, worked out once for every token: the bytes that it stands for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/io/json.h"
#include "runtime/model/tokenizer/added_tokens.h"
#include "runtime/model/tokenizer/vocabulary.h"

namespace kva::tok {

// How a file's tokens become bytes.
struct DecoderRules {
  bool byte_level = false;
  bool byte_fallback = false;
  struct Replacement {
    std::string text;
    std::string content;
  };
  std::vector<Replacement> replacements;
  // One leading space of the whole text goes, because encoding added it.
  bool strip_first_space = false;

  // Reads ByteLevel, Metaspace, and Sequence of Replace (of a String), ByteFallback, Fuse, Strip (of one
  // space at the start, behind Fuse) and these; InputError for anything else.
  static DecoderRules read(const JsonNode& node);
};

class TokenDecoder {
 public:
  TokenDecoder() = default;
  // Added tokens stand for their content.
  TokenDecoder(const DecoderRules& rules, const Vocabulary& vocabulary, const std::vector<AddedToken>& added);

  // Empty for an id without a token (models have more rows than tokens). Bytes of one token need not be
  // valid UTF-8.
  std::string_view bytes(int32_t id) const;
  bool strips_first_space() const { return strip_first_space_; }

 private:
  std::vector<std::string> bytes_;
  bool strip_first_space_ = false;
};

}  // namespace kva::tok
