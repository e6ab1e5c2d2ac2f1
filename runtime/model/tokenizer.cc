#include "runtime/model/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/error.h"
#include "runtime/io/utf8.h"
#include "runtime/model/tokenizer/parts.h"

namespace kva {
namespace {

constexpr std::string_view kMetaspace = "\u2581";

// Hands out the parts of a word between which no merge is possible (Bpe::can_cut_before_metaspace).
template <typename F>
void cut_before_metaspace(std::string_view word, F f) {
  std::size_t at = word.find(kMetaspace);
  while (at != std::string_view::npos) {
    if (at > 0 && !word.substr(0, at).ends_with(kMetaspace)) {
      f(word.substr(0, at));
      word.remove_prefix(at);
      at = 0;
    }
    at = word.find(kMetaspace, at + kMetaspace.size());
  }
  f(word);
}

void remove_first_space(std::string& text) {
  if (text.starts_with(' ')) text.erase(0, 1);
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&& other) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&& other) noexcept = default;

Tokenizer Tokenizer::load(const std::string& model_folder) {
  Tokenizer tokenizer(std::make_unique<const Parts>(Parts::read_folder(model_folder)));
  const auto model_vocab_size = tokenizer.parts_->settings.model_vocab_size;
  if (model_vocab_size) tokenizer.check_fits_model(*model_vocab_size);
  return tokenizer;
}

Tokenizer Tokenizer::parse(std::string_view tokenizer_json, const std::string& source) {
  return Tokenizer(std::make_unique<const Parts>(Parts::read_text(tokenizer_json, source)));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  if (static_cast<int64_t>(text.size()) > kMaxTextBytes)
    throw InputError(fmt::format("text: expected at most {} bytes, found {}", kMaxTextBytes, text.size()));
  std::string repaired;
  if (first_invalid_utf8(text)) {
    repaired = replace_invalid_utf8(text);
    text = repaired;
  }
  const Parts& parts = *parts_;
  std::vector<int32_t> ids;
  if (options.add_special) ids = parts.post_processor.before;
  tok::WordCache cache(parts.bpe);
  const bool cuts = parts.bpe.can_cut_before_metaspace() && !parts.bpe.options().byte_level;
  const tok::WordSink on_word = [&](std::string_view word) {
    if (cuts) {
      cut_before_metaspace(word, [&](std::string_view part) { cache.encode(part, ids); });
    } else {
      cache.encode(word, ids);
    }
  };
  const auto on_piece = [&](std::string_view piece) {
    const bool at_start = piece.data() == text.data();
    const std::string normalized = parts.normalizer.apply(std::string(piece));
    parts.added.cut(normalized, true, options.parse_special,
                    [&](std::string_view rest, const tok::AddedToken* token) {
                      if (token != nullptr) return ids.push_back(token->id);
                      parts.pre_tokenizer.split(rest, at_start && rest.data() == normalized.data(), on_word);
                    });
  };
  parts.added.cut(text, false, options.parse_special,
                  [&](std::string_view piece, const tok::AddedToken* token) {
                    if (token != nullptr) return ids.push_back(token->id);
                    on_piece(piece);
                  });
  if (options.add_special)
    ids.insert(ids.end(), parts.post_processor.after.begin(), parts.post_processor.after.end());
  return ids;
}

std::vector<int32_t> Tokenizer::encode_chat(const std::string& user_message) const {
  const ChatMessage message{"user", user_message};
  return encode(apply_chat_template({&message, 1}, true), {.add_special = false});
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids)
    if (!(skip_special && is_special(id))) bytes += token_bytes(id);
  if (strips_first_space()) remove_first_space(bytes);
  return replace_invalid_utf8(bytes);
}

int32_t Tokenizer::vocab_size() const { return parts_->vocab_size; }
std::optional<int32_t> Tokenizer::bos_id() const { return parts_->bos_id; }
const std::vector<int32_t>& Tokenizer::eos_ids() const { return parts_->eos_ids; }
std::string Tokenizer::token_text(int32_t id) const { return std::string(parts_->text_of(id)); }
std::string_view Tokenizer::token_bytes(int32_t id) const { return parts_->decoder.bytes(id); }
bool Tokenizer::is_special(int32_t id) const { return parts_->added.is_special(id); }
bool Tokenizer::strips_first_space() const { return parts_->decoder.strips_first_space(); }

void Tokenizer::check_fits_model(int64_t model_vocab_size) const {
  if (vocab_size() <= model_vocab_size) return;
  const int32_t last = vocab_size() - 1;
  throw InputError(
      fmt::format("{}: expected token ids below {} (vocab_size of the model's config.json), found {} "
                  "with id {}; the tokenizer belongs to another model",
                  parts_->source, model_vocab_size, quoted_for_error(token_text(last)), last));
}

bool Tokenizer::has_chat_template() const { return !parts_->settings.chat_template.empty(); }

std::string Tokenizer::chat_template_name() const { return parts_->chat_template().name(); }

std::string Tokenizer::apply_chat_template(std::span<const ChatMessage> messages,
                                           bool add_generation_prompt) const {
  const auto& settings = parts_->settings;
  return parts_->chat_template().render(messages, add_generation_prompt, settings.bos_token,
                                        settings.eos_token);
}

std::string TextStream::push(int32_t id) {
  if (skip_special_ && tokenizer_->is_special(id)) return "";
  pending_ += tokenizer_->token_bytes(id);
  if (at_start_ && !pending_.empty()) {
    at_start_ = false;
    if (tokenizer_->strips_first_space()) remove_first_space(pending_);
  }
  const std::size_t finished = finished_utf8(pending_);
  std::string out = replace_invalid_utf8(std::string_view(pending_).substr(0, finished));
  pending_.erase(0, finished);
  return out;
}

std::string TextStream::finish() {
  std::string out = replace_invalid_utf8(pending_);
  pending_.clear();
  at_start_ = true;
  return out;
}

}  // namespace kva
