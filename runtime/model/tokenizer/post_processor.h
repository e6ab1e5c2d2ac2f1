// The post-processor of a tokenizer.json: the special tokens around a text.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/io/json.h"
#include "runtime/model/tokenizer/vocabulary.h"

namespace kva::tok {

struct PostProcessor {
  std::vector<int32_t> before;
  std::vector<int32_t> after;

  // Reads TemplateProcessing (its template for a single text), RobertaProcessing, BertProcessing, ByteLevel
  // (which adds nothing) and Sequence; InputError for any other type.
  static PostProcessor read(const JsonNode& node);
};

}  // namespace kva::tok
