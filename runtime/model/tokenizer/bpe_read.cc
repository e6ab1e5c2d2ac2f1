#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "runtime/error.h"
#include "runtime/io/file.h"
#include "runtime/io/utf8.h"
#include "runtime/model/tokenizer/bpe.h"
#include "runtime/model/tokenizer/read_pattern.h"

namespace kva::tok {
namespace {

constexpr int64_t kMaxMergesBytes = 256 << 20;
constexpr std::string_view kMetaspace = "\u2581";

// Splits "left right" at its only space.
bool split_pair(std::string_view line, std::string_view& left, std::string_view& right) {
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos) return false;
  left = line.substr(0, space);
  right = line.substr(space + 1);
  return !left.empty() && !right.empty() && right.find(' ') == std::string_view::npos;
}

void refuse_text(const JsonNode& model, const std::string& key) {
  if (!model.get_string(key, "").empty()) model.at(key).fail("none (this option is not supported)");
}

}  // namespace

Bpe Bpe::read(const JsonNode& model, bool byte_level) {
  if (const auto type = model.find("type"); type && type->as_string() != "BPE")
    type->fail("BPE (the only tokenizer model that is supported)");
  if (model.get_number("dropout", 0, 0, 1) != 0) model.at("dropout").fail("none (it makes ids random)");
  refuse_text(model, "continuing_subword_prefix");
  refuse_text(model, "end_of_word_suffix");
  Bpe bpe;
  bpe.options_.byte_level = byte_level;
  bpe.options_.byte_fallback = model.get_bool("byte_fallback", false);
  bpe.options_.ignore_merges = model.get_bool("ignore_merges", false);
  bpe.options_.fuse_unknown = model.get_bool("fuse_unk", false);
  bpe.options_.unknown_token = model.get_string("unk_token", "");
  bpe.read_vocabulary(model.at("vocab"));
  bpe.read_merges(model.at("merges"));
  bpe.finish();
  return bpe;
}

Bpe Bpe::read_files(const std::string& vocab_path, const std::string& merges_path) {
  Bpe bpe;
  bpe.options_.byte_level = true;
  bpe.read_vocabulary(JsonNode::parse_file(vocab_path));
  const std::string text = read_text_file(merges_path, kMaxMergesBytes);
  if (first_invalid_utf8(text))
    throw InputError(fmt::format("{}: expected UTF-8, found other bytes", merges_path));
  std::string_view rest = text;
  for (int64_t number = 1; !rest.empty(); ++number) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    std::string_view left;
    std::string_view right;
    const std::string where = fmt::format("{}: line {}", merges_path, number);
    if (!split_pair(line, left, right))
      throw InputError(fmt::format("{}: expected two tokens and a space between, found {}", where,
                                   quoted_for_error(line)));
    bpe.add_merge(left, right, where);
  }
  bpe.finish();
  return bpe;
}

// Vocabularies and merges have hundreds of thousands of members: they are read from the document itself, and
// a JsonNode is made for the error only.
void Bpe::read_vocabulary(const JsonNode& vocabulary) {
  if (!vocabulary.is_object()) vocabulary.fail("an object of tokens and their ids");
  const nlohmann::json& members = vocabulary.raw();
  const std::string where = where_of(vocabulary);
  vocabulary_.reserve(members.size());
  for (const auto& member : members.items()) {
    if (!member.value().is_number_integer()) vocabulary.at(member.key()).fail("a token id");
    // Ids above INT64_MAX turn negative here: refused all the same.
    vocabulary_.add(member.key(), member.value().get<int64_t>(), where);
  }
  if (vocabulary_.size() == 0) vocabulary.fail("at least one token");
}

void Bpe::read_merges(const JsonNode& merges) {
  if (!merges.is_array()) merges.fail("an array of pairs");
  const std::string where = where_of(merges);
  merges_.reserve(static_cast<std::size_t>(merges.size()));
  int64_t index = 0;
  for (const nlohmann::json& merge : merges.raw()) {
    std::string_view left;
    std::string_view right;
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get_ref<const std::string&>();
      right = merge[1].get_ref<const std::string&>();
    } else if (!merge.is_string() || !split_pair(merge.get_ref<const std::string&>(), left, right)) {
      merges.at(index).fail("two tokens: [\"a\", \"b\"] or \"a b\"");
    }
    add_merge(left, right, where);
    ++index;
  }
}

void Bpe::add_merge(std::string_view left, std::string_view right, const std::string& where) {
  const auto id_of = [&](std::string_view text) {
    if (const auto id = vocabulary_.find(text)) return *id;
    throw InputError(fmt::format("{}: expected merges of tokens in the vocabulary, found {}, which is not",
                                 where, quoted_for_error(text)));
  };
  const int32_t left_id = id_of(left);
  const int32_t right_id = id_of(right);
  const int32_t merged_id = id_of(std::string(left) + std::string(right));
  // Of two equal merges the later counts, as in Hugging Face's tokenizers.
  merges_[pair_key(left_id, right_id)] = {next_rank_++, merged_id};
  if (right.starts_with(kMetaspace) && !left.ends_with(kMetaspace)) can_cut_before_metaspace_ = false;
}

void Bpe::finish() {
  if (!options_.unknown_token.empty()) unknown_id_ = vocabulary_.find(options_.unknown_token);
  for (std::size_t byte = 0; byte < 256; ++byte)
    byte_ids_[byte] = vocabulary_.find(fmt::format("<0x{:02X}>", byte)).value_or(-1);
  // A ▁ without a token is an unknown character, which may fuse with its neighbours; a whole text that is a
  // token (ignore_merges) must not be cut.
  if (!vocabulary_.find(kMetaspace) || options_.ignore_merges) can_cut_before_metaspace_ = false;
}

}  // namespace kva::tok
