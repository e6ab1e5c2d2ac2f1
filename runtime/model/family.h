// A model family: how its config.json and its tensor names map to ours. One file each, and one line in
// families.cc.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "runtime/io/json.h"
#include "runtime/model/model_config.h"
#include "runtime/model/weights.h"

namespace kva {

struct Family {
  std::string_view name;
  std::vector<std::string_view> architectures;  // members of config.json's `architectures`
  std::vector<std::string_view> model_types;    // where `architectures` is absent

  // Fills the config from the file's top level; family and architecture are set already. Throws InputError.
  void (*read_config)(const JsonNode& root, ModelConfig& config);
  // Takes every tensor the config asks for. Throws InputError.
  void (*load_weights)(const ModelConfig& config, WeightLoader& loader, ModelWeights& weights);
};

const Family& opt_family();
const Family& gpt2_family();
const Family& llama_family();

std::span<const Family* const> families();
const Family& family_named(std::string_view name);

// Fields that several families share. Bounds keep every later product of sizes within 63 bits.
int read_layers(const JsonNode& root, const char* key);
int read_heads(const JsonNode& root, const char* key);
int64_t read_width(const JsonNode& root, const char* key);
int64_t read_vocab(const JsonNode& root);
int64_t read_positions(const JsonNode& root, const char* key);
Activation read_activation(const JsonNode& root, const char* key, const char* fallback);
// head_dim = hidden / heads; throws where that leaves a rest.
int divided_head_dim(const JsonNode& root, int64_t hidden, int heads);

}  // namespace kva
