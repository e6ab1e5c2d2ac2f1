// What the small files beside a tokenizer say: which tokens begin and end a text, and the chat template.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/model/tokenizer/added_tokens.h"

namespace kva::tok {

struct Settings {
  std::string model_type;                   // config.json; empty where the file is absent
  std::optional<int64_t> model_vocab_size;  // config.json
  std::optional<int32_t> bos_id;            // config.json, else generation_config.json
  std::vector<int32_t> eos_ids;             // both of them, without repeats
  std::string bos_token;                    // tokenizer_config.json, else special_tokens_map.json
  std::string eos_token;                    // the same
  std::vector<std::string> special_tokens;  // bos, eos, unk, pad and the additional ones that are named
  std::vector<AddedToken> added_tokens;     // tokenizer_config.json's added_tokens_decoder, added_tokens.json
  std::optional<bool> add_bos;              // tokenizer_config.json
  std::optional<bool> add_eos;              // the same
  bool add_prefix_space = false;            // the same; only for vocab.json and merges.txt
  std::string chat_template;                // chat_template.jinja, else tokenizer_config.json
  std::string chat_template_file;           // where it stands

  // Every file may be absent. Throws InputError for a damaged one.
  static Settings read(const std::string& folder);
};

}  // namespace kva::tok
