// Text to token ids and back, as the model's own tokenizer does it: a tokenizer.json (byte-pair encoding,
// byte level or with byte fallback), or the vocab.json and merges.txt of GPT-2 and OPT.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/model/tokenizer/chat_template.h"

namespace kva {

struct EncodeOptions {
  bool add_special = true;    // the tokens that the model expects around a text (BOS, say)
  bool parse_special = true;  // special tokens written out in the text, <|im_end|> say, become their ids
};

// Ids agree with Hugging Face's tokenizers, also where that loses text: a character for which the vocabulary
// has neither token, bytes nor an unknown token is dropped (SmolLM2 lacks 21 of the 256 bytes).
// Immutable after loading: threads may share it. Move-only.
class Tokenizer {
 public:
  // Needs only the tokenizer's files; config.json, generation_config.json, tokenizer_config.json,
  // special_tokens_map.json, added_tokens.json and chat_template.jinja are read where they are there. Throws
  // InputError for missing or damaged files, for what is not supported, and where config.json has fewer
  // tokens than the tokenizer.
  static Tokenizer load(const std::string& model_folder);
  // A tokenizer.json alone; `source` names it in errors.
  static Tokenizer parse(std::string_view tokenizer_json, const std::string& source);

  ~Tokenizer();
  Tokenizer(Tokenizer&& other) noexcept;
  Tokenizer& operator=(Tokenizer&& other) noexcept;

  // Ill-formed parts of `text` count as U+FFFD. Throws InputError for more than kMaxTextBytes and for a text
  // on which a pre-tokenizer's regular expression gives up.
  static constexpr int64_t kMaxTextBytes = int64_t{1} << 30;
  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;

  // Valid UTF-8; ill-formed bytes become U+FFFD. Ids without a token stand for nothing. The space that
  // encoding put before the text (Llama 2, Mistral) is taken away again.
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;

  // One over the largest id, added tokens included.
  int32_t vocab_size() const;
  std::optional<int32_t> bos_id() const;
  // Every id that ends a text, as the configuration files say; may be empty.
  const std::vector<int32_t>& eos_ids() const;
  // As the vocabulary spells it, or the added token's text; empty for an id without a token.
  std::string token_text(int32_t id) const;
  // What the token stands for, often not valid UTF-8 by itself. Lives as long as the tokenizer.
  std::string_view token_bytes(int32_t id) const;
  bool is_special(int32_t id) const;
  // Whether decoding takes away one leading space of the whole text.
  bool strips_first_space() const;

  // Throws InputError where some token's id is not below the model's number of tokens.
  void check_fits_model(int64_t model_vocab_size) const;

  bool has_chat_template() const;
  // The format of the model's chat template (tokenizer/chat_template.h lists them); InputError where the
  // model has none or an unknown one.
  std::string chat_template_name() const;
  // The messages as the model was trained to see them. The text holds BOS where the format wants it: encode
  // it with add_special = false. Errors as above, and for roles out of place.
  std::string apply_chat_template(std::span<const ChatMessage> messages, bool add_generation_prompt) const;
  // Ids of a user's message in that format, up to where the answer begins.
  std::vector<int32_t> encode_chat(const std::string& user_message) const;

 private:
  struct Parts;
  explicit Tokenizer(std::unique_ptr<const Parts> parts);
  std::unique_ptr<const Parts> parts_;
};

// Decodes ids one by one. Each call gives the characters that are complete by then, so that every piece is
// valid UTF-8 and the pieces together are decode()'s text. The tokenizer must outlive it.
class TextStream {
 public:
  explicit TextStream(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}

  std::string push(int32_t id);
  // What is left at the end: an unfinished character becomes U+FFFD.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  bool at_start_ = true;
  std::string pending_;  // the bytes of an unfinished character
};

}  // namespace kva
