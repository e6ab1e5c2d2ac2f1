#include "runtime/model/tokenizer/parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "runtime/error.h"
#include "runtime/io/utf8.h"

namespace kva {

using tok::AddedToken;

namespace {

std::vector<AddedToken> read_added_tokens(const JsonNode& root) {
  std::vector<AddedToken> tokens;
  const auto list = root.find("added_tokens");
  if (!list) return tokens;
  for (int64_t i = 0; i < list->size(); ++i) {
    const JsonNode entry = list->at(i);
    tokens.push_back(tok::read_added_token(entry, entry.at("id").as_int(0, tok::kMaxTokenId)));
  }
  return tokens;
}

// What GPT2Tokenizer takes as special where no file says so.
std::vector<std::string> default_special_tokens(const std::string& model_type) {
  if (model_type == "opt") return {"</s>", "<pad>"};
  return {"<|endoftext|>"};
}

// Files that list special tokens by name only: their ids are in the vocabulary.
std::vector<AddedToken> added_tokens_by_name(const tok::Settings& settings,
                                             const tok::Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens = settings.added_tokens;
  const auto& names =
      settings.special_tokens.empty() ? default_special_tokens(settings.model_type) : settings.special_tokens;
  for (const std::string& name : names) {
    const auto same =
        std::find_if(tokens.begin(), tokens.end(), [&](const auto& t) { return t.content == name; });
    if (same != tokens.end()) {
      same->special = true;
    } else if (const auto id = vocabulary.find(name)) {
      tokens.push_back({.content = name, .id = *id, .special = true});
    }
  }
  return tokens;
}

// One id for each text and one text for each id, over the vocabulary and the added tokens together.
void check_added_tokens(std::vector<AddedToken>& tokens, const tok::Vocabulary& vocabulary,
                        const std::string& where) {
  tok::Vocabulary seen;
  for (const AddedToken& token : tokens) {
    seen.add(token.content, token.id, where);
    const auto known = vocabulary.find(token.content);
    const std::string_view other = vocabulary.text(token.id);
    if (known.value_or(token.id) == token.id && (other.empty() || other == token.content)) continue;
    throw InputError(
        fmt::format("{}: expected added tokens that agree with the vocabulary, found {} with id {} where "
                    "the vocabulary differs",
                    where, quoted_for_error(token.content), token.id));
  }
}

}  // namespace

Tokenizer::Parts Tokenizer::Parts::read_text(std::string_view tokenizer_json, const std::string& source) {
  Parts parts;
  parts.source = source;
  parts.read_json(JsonNode::parse_text(tokenizer_json, source));
  return parts;
}

Tokenizer::Parts Tokenizer::Parts::read_folder(const std::string& folder) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(folder))
    throw InputError(fmt::format("{}: expected a model folder, found {}", folder,
                                 fs::exists(folder) ? "something else" : "nothing"));
  Parts parts;
  parts.settings = tok::Settings::read(folder);
  const std::string json = folder + "/tokenizer.json";
  if (fs::exists(json)) {
    parts.source = json;
    parts.read_json(JsonNode::parse_file(json));
  } else if (fs::exists(folder + "/vocab.json") && fs::exists(folder + "/merges.txt")) {
    parts.source = folder + "/vocab.json";
    parts.read_vocab_and_merges(folder);
  } else {
    throw InputError(
        fmt::format("{}: expected tokenizer.json, or vocab.json and merges.txt, found neither{}", folder,
                    fs::exists(folder + "/tokenizer.model")
                        ? "; tokenizer.model alone is not supported: save it as tokenizer.json with "
                          "transformers' save_pretrained"
                        : ""));
  }
  return parts;
}

void Tokenizer::Parts::read_json(const JsonNode& root) {
  if (const auto node = root.find("normalizer")) normalizer = tok::Normalizer::read(*node);
  if (const auto node = root.find("pre_tokenizer")) pre_tokenizer = tok::PreTokenizer::read(*node);
  bpe = tok::Bpe::read(root.at("model"), pre_tokenizer.byte_level());
  if (const auto node = root.find("post_processor")) post_processor = tok::PostProcessor::read(*node);
  tok::DecoderRules rules;
  rules.byte_level = pre_tokenizer.byte_level();
  if (!rules.byte_level || root.has("decoder")) rules = tok::DecoderRules::read(root.at("decoder"));
  finish(read_added_tokens(root), rules);
}

void Tokenizer::Parts::read_vocab_and_merges(const std::string& folder) {
  const std::string& type = settings.model_type;
  if (!type.empty() && type != "gpt2" && type != "opt")
    throw InputError(
        fmt::format("{}: expected tokenizer.json, found only vocab.json and merges.txt, which do not say "
                    "how a model of type {} splits text",
                    folder, type));
  pre_tokenizer = tok::PreTokenizer::gpt2(settings.add_prefix_space);
  bpe = tok::Bpe::read_files(folder + "/vocab.json", folder + "/merges.txt");
  if (settings.bos_token.empty()) settings.bos_token = default_special_tokens(type).front();
  if (settings.eos_token.empty()) settings.eos_token = default_special_tokens(type).front();
  if (!settings.add_bos && type == "opt") settings.add_bos = true;
  tok::DecoderRules rules;
  rules.byte_level = true;
  finish(added_tokens_by_name(settings, bpe.vocabulary()), rules);
}

void Tokenizer::Parts::finish(std::vector<AddedToken> added_tokens, const tok::DecoderRules& rules) {
  check_added_tokens(added_tokens, bpe.vocabulary(), source);
  vocab_size = bpe.vocabulary().size();
  for (const AddedToken& token : added_tokens) vocab_size = std::max(vocab_size, token.id + 1);
  decoder = tok::TokenDecoder(rules, bpe.vocabulary(), added_tokens);
  added = tok::AddedTokens(std::move(added_tokens), normalizer, source);
  bos_id = settings.bos_id;
  if (const auto id = find(settings.bos_token)) bos_id = id;
  eos_ids = settings.eos_ids;
  if (const auto id = find(settings.eos_token);
      id && std::find(eos_ids.begin(), eos_ids.end(), *id) == eos_ids.end())
    eos_ids.push_back(*id);
  apply_bos_and_eos_rules();
  for (const auto* ids : {&post_processor.before, &post_processor.after})
    for (const int32_t id : *ids)
      if (text_of(id).empty())
        throw InputError(fmt::format("{}: post_processor: expected ids of tokens, found {}", source, id));
}

// tokenizer_config.json has the last word on BOS and EOS, as in transformers.
void Tokenizer::Parts::apply_bos_and_eos_rules() {
  const auto apply = [](std::optional<bool> wanted, std::optional<int32_t> id, std::vector<int32_t>& side) {
    if (!wanted || !id) return;
    if (*wanted && side.empty()) side.push_back(*id);
    if (!*wanted) std::erase(side, *id);
  };
  apply(settings.add_bos, find(settings.bos_token), post_processor.before);
  apply(settings.add_eos, find(settings.eos_token), post_processor.after);
}

std::optional<int32_t> Tokenizer::Parts::find(std::string_view text) const {
  if (text.empty()) return std::nullopt;
  for (const AddedToken& token : added.tokens())
    if (token.content == text) return token.id;
  return bpe.vocabulary().find(text);
}

std::string_view Tokenizer::Parts::text_of(int32_t id) const {
  if (const auto text = bpe.vocabulary().text(id); !text.empty()) return text;
  return decoder.bytes(id);  // an added token: its content
}

tok::ChatTemplate Tokenizer::Parts::chat_template() const {
  if (settings.chat_template.empty())
    throw InputError(
        fmt::format("{}: this model has no chat template (chat_template in tokenizer_config.json); pass "
                    "plain prompts instead",
                    source));
  return tok::ChatTemplate::recognise(settings.chat_template, settings.chat_template_file);
}

}  // namespace kva
