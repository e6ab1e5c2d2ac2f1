// Patterns in a tokenizer.json: {"String": "..."} or {"Regex": "..."}.
#pragma once

#include <string>

#include "runtime/io/json.h"
#include "runtime/model/tokenizer/pattern.h"

namespace kva::tok {

// "file: path.of.the.field", as errors begin.
std::string where_of(const JsonNode& node);

// Throws InputError for anything else.
Pattern read_pattern(const JsonNode& node);

}  // namespace kva::tok
