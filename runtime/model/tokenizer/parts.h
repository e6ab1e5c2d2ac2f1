// The pieces of a Tokenizer and how they are put together from its files.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/io/json.h"
#include "runtime/model/tokenizer.h"
#include "runtime/model/tokenizer/added_tokens.h"
#include "runtime/model/tokenizer/bpe.h"
#include "runtime/model/tokenizer/chat_template.h"
#include "runtime/model/tokenizer/normalizer.h"
#include "runtime/model/tokenizer/post_processor.h"
#include "runtime/model/tokenizer/pre_tokenizer.h"
#include "runtime/model/tokenizer/settings.h"
#include "runtime/model/tokenizer/token_decoder.h"

namespace kva {

struct Tokenizer::Parts {
  std::string source;  // the file that errors name
  tok::Settings settings;
  tok::Normalizer normalizer;
  tok::PreTokenizer pre_tokenizer;
  tok::Bpe bpe;
  tok::AddedTokens added;
  tok::PostProcessor post_processor;
  tok::TokenDecoder decoder;
  int32_t vocab_size = 0;
  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;

  // Both throw InputError as Tokenizer's functions say.
  static Parts read_folder(const std::string& folder);
  static Parts read_text(std::string_view tokenizer_json, const std::string& source);

  std::optional<int32_t> find(std::string_view text) const;
  std::string_view text_of(int32_t id) const;
  tok::ChatTemplate chat_template() const;

 private:
  void read_json(const JsonNode& root);
  void read_vocab_and_merges(const std::string& folder);
  // The last steps of both ways: checks the added tokens against the vocabulary, then fills in the rest.
  void finish(std::vector<tok::AddedToken> added_tokens, const tok::DecoderRules& rules);
  void apply_bos_and_eos_rules();
};

}  // namespace kva
