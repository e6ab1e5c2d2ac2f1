// The vocabulary of Llama 2 as the conformance data has it (GGUF), turned into a tokenizer.json.
#pragma once

#include <string>

namespace kva {

// The text of a tokenizer.json: pieces with their bytes, merges in the order of their scores, and the
// normalizer, post-processor and decoder that Llama 2's own file has.
std::string llama_spm_tokenizer_json(const std::string& gguf_path);

}  // namespace kva
