#include "runtime/model/tokenizer/settings.h"

#include <algorithm>
#include <filesystem>

#include "runtime/io/file.h"
#include "runtime/io/json.h"
#include "runtime/io/utf8.h"
#include "runtime/model/tokenizer/vocabulary.h"

namespace kva::tok {
namespace {

constexpr int64_t kMaxTemplateBytes = 1 << 20;
constexpr int64_t kMaxModelVocabulary = int64_t{1} << 31;

std::optional<JsonNode> read_if_there(const std::string& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  return JsonNode::parse_file(path);
}

// A token is given as its text or as an object with its content.
std::string token_text(const JsonNode& file, const std::string& key) {
  const auto node = file.find(key);
  if (!node) return "";
  return node->is_object() ? node->at("content").as_string() : node->as_string();
}

void add_id(std::vector<int32_t>& ids, const JsonNode& node) {
  const auto id = static_cast<int32_t>(node.as_int(0, kMaxTokenId));
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
}

void read_ids(const JsonNode& file, Settings& settings) {
  if (const auto bos = file.find("bos_token_id"); bos && !settings.bos_id)
    settings.bos_id = static_cast<int32_t>(bos->as_int(0, kMaxTokenId));
  const auto eos = file.find("eos_token_id");
  if (!eos) return;
  if (!eos->is_array()) return add_id(settings.eos_ids, *eos);
  for (int64_t i = 0; i < eos->size(); ++i) add_id(settings.eos_ids, eos->at(i));
}

void read_token_names(const JsonNode& file, Settings& settings) {
  const auto note = [&](const std::string& text) {
    if (!text.empty()) settings.special_tokens.push_back(text);
    return text;
  };
  if (const auto bos = note(token_text(file, "bos_token")); settings.bos_token.empty())
    settings.bos_token = bos;
  if (const auto eos = note(token_text(file, "eos_token")); settings.eos_token.empty())
    settings.eos_token = eos;
  note(token_text(file, "unk_token"));
  note(token_text(file, "pad_token"));
  const auto more = file.find("additional_special_tokens");
  if (!more || !more->is_array()) return;
  for (int64_t i = 0; i < more->size(); ++i) {
    const JsonNode entry = more->at(i);
    note(entry.is_object() ? entry.at("content").as_string() : entry.as_string());
  }
}

void read_added_tokens_decoder(const JsonNode& file, Settings& settings) {
  const auto decoder = file.find("added_tokens_decoder");
  if (!decoder) return;
  for (const std::string& key : decoder->keys()) {
    const bool digits = !key.empty() && key.size() <= 9 &&
                        std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (!digits) decoder->fail("token ids as the keys");
    settings.added_tokens.push_back(read_added_token(decoder->at(key), std::stoll(key)));
  }
}

// One template, or several with names, of which "default" is meant.
std::string template_in(const JsonNode& node) {
  if (!node.is_array()) return node.as_string();
  for (int64_t i = 0; i < node.size(); ++i)
    if (node.at(i).at("name").as_string() == "default") return node.at(i).at("template").as_string();
  return "";
}

void read_tokenizer_config(const JsonNode& file, Settings& settings) {
  read_token_names(file, settings);
  read_added_tokens_decoder(file, settings);
  if (const auto flag = file.find("add_bos_token")) settings.add_bos = flag->as_bool();
  if (const auto flag = file.find("add_eos_token")) settings.add_eos = flag->as_bool();
  settings.add_prefix_space = file.get_bool("add_prefix_space", false);
  if (const auto node = file.find("chat_template")) {
    settings.chat_template = template_in(*node);
    settings.chat_template_file = file.source();
  }
}

}  // namespace

Settings Settings::read(const std::string& folder) {
  Settings settings;
  if (const auto file = read_if_there(folder + "/config.json")) {
    settings.model_type = file->get_string("model_type", "");
    if (file->has("vocab_size"))
      settings.model_vocab_size = file->at("vocab_size").as_int(1, kMaxModelVocabulary);
    read_ids(*file, settings);
  }
  if (const auto file = read_if_there(folder + "/generation_config.json")) read_ids(*file, settings);
  if (const auto file = read_if_there(folder + "/tokenizer_config.json"))
    read_tokenizer_config(*file, settings);
  if (const auto file = read_if_there(folder + "/special_tokens_map.json")) read_token_names(*file, settings);
  if (const auto file = read_if_there(folder + "/added_tokens.json")) {
    for (const std::string& text : file->keys()) {
      const auto id = static_cast<int32_t>(file->at(text).as_int(0, kMaxTokenId));
      settings.added_tokens.push_back({.content = text, .id = id});
    }
  }
  const std::string jinja = folder + "/chat_template.jinja";
  if (std::filesystem::exists(jinja)) {
    settings.chat_template = replace_invalid_utf8(read_text_file(jinja, kMaxTemplateBytes));
    settings.chat_template_file = jinja;
  }
  return settings;
}

}  // namespace kva::tok
