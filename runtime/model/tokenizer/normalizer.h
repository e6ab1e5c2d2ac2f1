// The normalizer of a tokenizer.json: what happens to text before it is split.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "runtime/io/json.h"

namespace kva::tok {

class Normalizer {
 public:
  // Leaves text as it is.
  Normalizer() = default;
  // Reads NFC, NFD, NFKC, NFKD, Prepend, Replace and Sequence; InputError for any other type.
  static Normalizer read(const JsonNode& node);

  // `text` is valid UTF-8, and so is the result. Empty text stays empty.
  std::string apply(std::string text) const;

 private:
  using Step = std::function<std::string(const std::string&)>;
  void add(const JsonNode& node);
  std::vector<Step> steps_;
};

}  // namespace kva::tok
