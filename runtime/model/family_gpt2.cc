// GPT-2 (Radford et al. 2019): gpt2 to gpt2-xl, DialoGPT. Its projections are stored as [inputs, outputs],
// those of Q, K and V side by side in one.
#include <fmt/format.h>

#include <cmath>

#include "runtime/error.h"
#include "runtime/model/family.h"

namespace kva {
namespace {

void read_config(const JsonNode& root, ModelConfig& config) {
  config.layers = read_layers(root, "n_layer");
  config.heads = config.kv_heads = read_heads(root, "n_head");
  config.hidden = config.embedding = read_width(root, "n_embd");
  config.head_dim = divided_head_dim(root, config.hidden, config.heads);
  config.ffn = root.get_int("n_inner", 4 * config.hidden, 1, 1 << 22);
  config.vocab = read_vocab(root);
  config.max_positions = read_positions(root, root.has("n_positions") ? "n_positions" : "n_ctx");
  config.norm = NormKind::kLayerNorm;
  config.norm_eps = static_cast<float>(root.get_number("layer_norm_epsilon", 1e-5, 1e-12, 1.0));
  config.position = PositionKind::kLearned;
  config.scale_by_layer = root.get_bool("scale_attn_by_inverse_layer_idx", false);
  if (root.get_bool("add_cross_attention", false))
    root.at("add_cross_attention").fail("false (cross attention is not implemented)");
  if (root.get_bool("scale_attn_weights", true))
    config.attention_scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  config.activation = read_activation(root, "activation_function", "gelu_new");
  config.qkv_bias = config.output_bias = config.ffn_bias = true;
  config.tied_embeddings = root.get_bool("tie_word_embeddings", true);
}

Projection conv1d(WeightLoader& loader, const std::string& name, int64_t inputs, int64_t outputs) {
  return {loader.transposed(name + ".weight", inputs, outputs), loader.vector(name + ".bias", outputs)};
}

Projection part(const Projection& joined, int64_t index, int64_t outputs) {
  return {joined.weight.row_range(index * outputs, outputs), joined.bias + index * outputs};
}

void load_layer(const ModelConfig& config, int index, WeightLoader& loader, LayerWeights& layer) {
  const std::string base = fmt::format("h.{}.", index);
  const int64_t hidden = config.hidden;
  layer.attention_norm = loader.norm(base + "ln_1", hidden, true);
  const Projection qkv = conv1d(loader, base + "attn.c_attn", hidden, 3 * hidden);
  layer.q = part(qkv, 0, hidden);
  layer.k = part(qkv, 1, hidden);
  layer.v = part(qkv, 2, hidden);
  layer.output = conv1d(loader, base + "attn.c_proj", hidden, hidden);
  layer.ffn_norm = loader.norm(base + "ln_2", hidden, true);
  layer.up = conv1d(loader, base + "mlp.c_fc", hidden, config.ffn);
  layer.down = conv1d(loader, base + "mlp.c_proj", config.ffn, hidden);
}

void load_weights(const ModelConfig& config, WeightLoader& loader, ModelWeights& weights) {
  loader.choose_prefix({"transformer.", ""}, "wte.weight");
  weights.token_embedding = loader.matrix("wte.weight", config.vocab, config.hidden);
  weights.position_embedding = loader.matrix("wpe.weight", config.max_positions, config.hidden);
  for (int i = 0; i < config.layers; ++i) load_layer(config, i, loader, weights.layers.emplace_back());
  weights.final_norm = loader.norm("ln_f", config.hidden, true);
  weights.head = loader.head(config, weights.token_embedding);
}

}  // namespace

const Family& gpt2_family() {
  static const Family family = {
      "gpt2", {"GPT2LMHeadModel", "GPT2Model"}, {"gpt2"}, read_config, load_weights};
  return family;
}

}  // namespace kva
