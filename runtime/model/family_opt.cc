// OPT (arXiv 2205.01068), facebook/opt-125m to opt-66b. opt-350m alone normalises after the residual sum and
// has a token embedding narrower than its layers.
#include <fmt/format.h>

#include <cmath>

#include "runtime/error.h"
#include "runtime/model/family.h"

namespace kva {
namespace {

// Rows of the position table before position 0.
constexpr int64_t kPositionOffset = 2;

void read_config(const JsonNode& root, ModelConfig& config) {
  config.layers = read_layers(root, "num_hidden_layers");
  config.heads = config.kv_heads = read_heads(root, "num_attention_heads");
  config.hidden = read_width(root, "hidden_size");
  config.head_dim = divided_head_dim(root, config.hidden, config.heads);
  config.ffn = read_width(root, "ffn_dim");
  config.vocab = read_vocab(root);
  config.embedding = root.get_int("word_embed_proj_dim", config.hidden, 1, 1 << 20);
  config.max_positions = read_positions(root, "max_position_embeddings");
  config.norm = NormKind::kLayerNorm;
  config.norm_eps = 1e-5f;
  config.norm_before = root.get_bool("do_layer_norm_before", true);
  config.final_norm = config.norm_before && !root.get_bool("_remove_final_layer_norm", false);
  config.norm_weights = root.get_bool("layer_norm_elementwise_affine", true);
  config.position = PositionKind::kLearned;
  config.position_offset = kPositionOffset;
  config.attention_scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  config.activation = read_activation(root, "activation_function", "relu");
  const bool bias = root.get_bool("enable_bias", true);
  config.qkv_bias = config.output_bias = config.ffn_bias = bias;
  config.tied_embeddings = root.get_bool("tie_word_embeddings", true);
}

NormWeights norm(const ModelConfig& config, WeightLoader& loader, const std::string& name) {
  return config.norm_weights ? loader.norm(name, config.hidden, true) : loader.plain_norm(config.hidden);
}

void load_layer(const ModelConfig& config, int index, WeightLoader& loader, LayerWeights& layer) {
  const std::string base = fmt::format("layers.{}.", index);
  const int64_t hidden = config.hidden;
  layer.attention_norm = norm(config, loader, base + "self_attn_layer_norm");
  layer.q = loader.projection(base + "self_attn.q_proj", hidden, hidden, config.qkv_bias);
  layer.k = loader.projection(base + "self_attn.k_proj", hidden, hidden, config.qkv_bias);
  layer.v = loader.projection(base + "self_attn.v_proj", hidden, hidden, config.qkv_bias);
  layer.output = loader.projection(base + "self_attn.out_proj", hidden, hidden, config.output_bias);
  layer.ffn_norm = norm(config, loader, base + "final_layer_norm");
  layer.up = loader.projection(base + "fc1", config.ffn, hidden, config.ffn_bias);
  layer.down = loader.projection(base + "fc2", hidden, config.ffn, config.ffn_bias);
}

void load_weights(const ModelConfig& config, WeightLoader& loader, ModelWeights& weights) {
  loader.choose_prefix({"model.decoder.", "decoder.", ""}, "embed_tokens.weight");
  weights.token_embedding = loader.matrix("embed_tokens.weight", config.vocab, config.embedding);
  weights.position_embedding =
      loader.matrix("embed_positions.weight", config.max_positions + kPositionOffset, config.hidden);
  if (config.embedding != config.hidden) {
    weights.embedding_in = loader.projection("project_in", config.hidden, config.embedding, false);
    weights.embedding_out = loader.projection("project_out", config.embedding, config.hidden, false);
  }
  for (int i = 0; i < config.layers; ++i) load_layer(config, i, loader, weights.layers.emplace_back());
  if (config.final_norm) weights.final_norm = norm(config, loader, "final_layer_norm");
  weights.head = loader.head(config, weights.token_embedding);
}

}  // namespace

const Family& opt_family() {
  static const Family family = {"opt", {"OPTForCausalLM", "OPTModel"}, {"opt"}, read_config, load_weights};
  return family;
}

}  // namespace kva
