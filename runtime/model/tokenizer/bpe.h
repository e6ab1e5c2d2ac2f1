// Byte-pair encoding of one word (Sennrich et al. 2016): its characters become tokens, then the pair of
// neighbours that was learnt first is merged, again and again, until no pair of the word was learnt.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/io/json.h"
#include "runtime/model/tokenizer/vocabulary.h"

namespace kva::tok {

struct BpeOptions {
  bool byte_level = false;     // words are bytes, each spelled by a character of the byte-level alphabet
  bool byte_fallback = false;  // a character without a token becomes its bytes' tokens <0x00> to <0xFF>
  bool ignore_merges = false;  // a word that is a token is that token
  bool fuse_unknown = false;   // unknown neighbours become one unknown token
  std::string unknown_token;   // empty: an unknown character is dropped, as Hugging Face drops it
};

class Bpe {
 public:
  // The "model" of a tokenizer.json. Throws InputError for another model than BPE, for options not listed
  // above, and for merges that name a token the vocabulary lacks.
  static Bpe read(const JsonNode& model, bool byte_level);
  // vocab.json and merges.txt, which are always byte-level.
  static Bpe read_files(const std::string& vocab_path, const std::string& merges_path);

  // Appends the word's ids. O(n log n) in the word's length.
  void encode(std::string_view word, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  const BpeOptions& options() const { return options_; }

  // True where no merge joins something to a following ▁ (U+2581). A text can then be cut before each ▁ that
  // follows another character without changing its ids: short, cacheable words instead of one long one.
  bool can_cut_before_metaspace() const { return can_cut_before_metaspace_; }

 private:
  struct Merge {
    int32_t rank;
    int32_t id;
  };
  struct Symbols;

  static uint64_t pair_key(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(left) << 32) | static_cast<uint32_t>(right);
  }
  void read_vocabulary(const JsonNode& vocabulary);
  void read_merges(const JsonNode& merges);
  void add_merge(std::string_view left, std::string_view right, const std::string& where);
  void finish();
  const Merge* find_merge(int32_t left, int32_t right) const;
  void add_character(std::string_view character, Symbols& symbols) const;
  bool add_bytes(std::string_view character, Symbols& symbols) const;
  void start_symbols(std::string_view word, Symbols& symbols) const;
  void merge_symbols(Symbols& symbols) const;

  BpeOptions options_;
  Vocabulary vocabulary_;
  std::unordered_map<uint64_t, Merge> merges_;  // by pair_key
  int32_t next_rank_ = 0;
  std::array<int32_t, 256> byte_ids_ = {};  // of <0x00> to <0xFF>; -1 where the vocabulary lacks one
  std::optional<int32_t> unknown_id_;
  bool can_cut_before_metaspace_ = true;
};

// Words already encoded, for as long as one text is: it owns its copies and belongs to one thread.
class WordCache {
 public:
  explicit WordCache(const Bpe& bpe) : bpe_(bpe) {}
  void encode(std::string_view word, std::vector<int32_t>& ids);

 private:
  struct Range {
    std::size_t begin;
    std::size_t count;
  };
  const Bpe& bpe_;
  std::unordered_map<std::string, Range, TextHash, std::equal_to<>> words_;
  std::vector<int32_t> stored_;
};

}  // namespace kva::tok
