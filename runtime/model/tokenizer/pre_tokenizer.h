// The pre-tokenizer of a tokenizer.json: how text is split into the words that BPE then encodes one by one.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/io/json.h"
#include "runtime/model/tokenizer/pattern.h"

namespace kva::tok {

// Receives one word, valid during the call.
using WordSink = std::function<void(std::string_view word)>;

class PreTokenizer {
 public:
  // Leaves text in one piece.
  PreTokenizer() = default;
  // Reads ByteLevel, Split, Digits, Metaspace and Sequence; InputError for any other type, and for a stage
  // behind ByteLevel (its words are bytes, no longer text).
  static PreTokenizer read(const JsonNode& node);
  // ByteLevel with GPT-2's pattern, as vocab.json and merges.txt imply.
  static PreTokenizer gpt2(bool add_prefix_space);

  // `text` is valid UTF-8 and starts the user's text where at_text_start says so.
  void split(std::string_view text, bool at_text_start, const WordSink& sink) const;

  // Whether the vocabulary spells bytes in the byte-level alphabet. Words handed to the sink are plain bytes
  // all the same.
  bool byte_level() const { return byte_level_; }
  // Whether a word begins with a space that the user did not write (Metaspace and add_prefix_space).
  bool adds_prefix() const;

 private:
  enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
  enum class Prepend { kNever, kFirst, kAlways };
  // What one pre-tokenizer does, in this order.
  struct Stage {
    std::string space;  // stands in for ' ' where not empty
    Prepend prepend = Prepend::kNever;
    std::string prefix;  // prepended to text that does not start with it
    std::optional<Pattern> pattern;
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;
  };
  class Grouper;

  void add(const JsonNode& node);
  void add_byte_level(bool add_prefix_space, bool use_regex);
  void add_split(const JsonNode& node);
  void add_digits(bool individual);
  void add_metaspace(const JsonNode& node);
  void run(std::size_t stage, std::string_view text, bool at_text_start, const WordSink& sink) const;
  void run_pattern(std::size_t stage, std::string_view text, bool at_text_start, const WordSink& sink) const;

  std::vector<Stage> stages_;
  bool byte_level_ = false;
};

}  // namespace kva::tok
