// The Llama family: Llama 2 and 3 (arXiv 2307.09288, 2407.21783), SmolLM2, TinyLlama, Mistral (arXiv
// 2310.06825) and Qwen2 (arXiv 2407.10671). They differ in biases, RoPE scaling and windows.
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "runtime/error.h"
#include "runtime/model/family.h"

namespace kva {
namespace {

// What transformers assumes where a Mistral config does not mention the window at all (null turns it off).
constexpr int64_t kMistralWindow = 4096;

void read_rope(const JsonNode& root, ModelConfig& config) {
  config.position = PositionKind::kRope;
  // Since version 5 transformers writes both theta and scaling into rope_parameters.
  const auto parameters = root.find("rope_parameters");
  const JsonNode base = parameters ? *parameters : root;
  config.rope_theta =
      base.get_number("rope_theta", root.get_number("rope_theta", 10000.0, 1.0, 1e12), 1.0, 1e12);
  for (const JsonNode& node : {root, base})
    if (node.get_number("partial_rotary_factor", 1.0, 0.0, 1.0) != 1.0)
      node.at("partial_rotary_factor").fail("1 (partial rotation is not implemented)");
  const auto scaling = parameters ? parameters : root.find("rope_scaling");
  if (!scaling) return;
  const char* key = scaling->has("rope_type") ? "rope_type" : "type";
  const std::string type = scaling->get_string(key, "default");
  if (type == "default") return;
  RopeScaling& out = config.rope_scaling;
  if (type == "linear") {
    out.kind = RopeScaling::Kind::kLinear;
  } else if (type == "llama3") {
    out.kind = RopeScaling::Kind::kLlama3;
    out.low_freq_factor = scaling->at("low_freq_factor").as_number(1e-6, 1e6);
    out.high_freq_factor = scaling->at("high_freq_factor").as_number(1e-6, 1e6);
    out.original_max_positions = scaling->at("original_max_position_embeddings").as_int(1, 1 << 26);
    if (out.high_freq_factor <= out.low_freq_factor)
      scaling->at("high_freq_factor")
          .fail(fmt::format("a number over low_freq_factor {}", out.low_freq_factor));
  } else {
    scaling->at(key).fail("a RoPE scaling that is implemented (default, linear, llama3)");
  }
  out.factor = scaling->at("factor").as_number(1e-6, 1e6);
}

void read_window(const JsonNode& root, ModelConfig& config) {
  if (config.architecture.starts_with("Mistral") || config.architecture == "mistral") {
    if (!root.raw().contains("sliding_window"))
      config.sliding_window = kMistralWindow;
    else if (root.has("sliding_window"))
      config.sliding_window = root.at("sliding_window").as_int(1, 1 << 26);
  } else if (root.get_bool("use_sliding_window", false)) {
    config.sliding_window = root.at("sliding_window").as_int(1, 1 << 26);
  }
}

void read_config(const JsonNode& root, ModelConfig& config) {
  const bool qwen = config.architecture.starts_with("Qwen2") || config.architecture == "qwen2";
  config.layers = read_layers(root, "num_hidden_layers");
  config.heads = read_heads(root, "num_attention_heads");
  config.kv_heads = static_cast<int>(root.get_int("num_key_value_heads", config.heads, 1, 4096));
  config.hidden = config.embedding = read_width(root, "hidden_size");
  config.head_dim = root.has("head_dim") ? static_cast<int>(root.at("head_dim").as_int(1, 4096))
                                         : divided_head_dim(root, config.hidden, config.heads);
  config.ffn = read_width(root, "intermediate_size");
  config.vocab = read_vocab(root);
  config.max_positions = read_positions(root, "max_position_embeddings");
  config.norm = NormKind::kRmsNorm;
  config.norm_eps = static_cast<float>(root.get_number("rms_norm_eps", 1e-6, 1e-12, 1.0));
  if (root.get_int("pretraining_tp", 1, 1, 1024) != 1)
    root.at("pretraining_tp").fail("1 (split projections are not implemented)");
  read_rope(root, config);
  read_window(root, config);
  config.attention_scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  config.activation = read_activation(root, "hidden_act", "silu");
  config.gated_ffn = true;
  const bool bias = root.get_bool("attention_bias", false);
  config.qkv_bias = qwen || bias;
  config.output_bias = !qwen && bias;
  config.ffn_bias = root.get_bool("mlp_bias", false);
  config.tied_embeddings = root.get_bool("tie_word_embeddings", false);
}

void load_layer(const ModelConfig& config, int index, WeightLoader& loader, LayerWeights& layer) {
  const std::string base = fmt::format("layers.{}.", index);
  const int64_t hidden = config.hidden;
  const int64_t q_width = int64_t{config.heads} * config.head_dim;
  const int64_t kv_width = int64_t{config.kv_heads} * config.head_dim;
  layer.attention_norm = loader.norm(base + "input_layernorm", hidden, false);
  layer.q = loader.projection(base + "self_attn.q_proj", q_width, hidden, config.qkv_bias);
  layer.k = loader.projection(base + "self_attn.k_proj", kv_width, hidden, config.qkv_bias);
  layer.v = loader.projection(base + "self_attn.v_proj", kv_width, hidden, config.qkv_bias);
  layer.output = loader.projection(base + "self_attn.o_proj", hidden, q_width, config.output_bias);
  layer.ffn_norm = loader.norm(base + "post_attention_layernorm", hidden, false);
  layer.gate = loader.projection(base + "mlp.gate_proj", config.ffn, hidden, config.ffn_bias);
  layer.up = loader.projection(base + "mlp.up_proj", config.ffn, hidden, config.ffn_bias);
  layer.down = loader.projection(base + "mlp.down_proj", hidden, config.ffn, config.ffn_bias);
}

void load_weights(const ModelConfig& config, WeightLoader& loader, ModelWeights& weights) {
  loader.choose_prefix({"model.", ""}, "embed_tokens.weight");
  weights.token_embedding = loader.matrix("embed_tokens.weight", config.vocab, config.hidden);
  for (int i = 0; i < config.layers; ++i) load_layer(config, i, loader, weights.layers.emplace_back());
  weights.final_norm = loader.norm("norm", config.hidden, false);
  weights.head = loader.head(config, weights.token_embedding);
}

}  // namespace

const Family& llama_family() {
  static const Family family = {"llama",
                                {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"},
                                {"llama", "mistral", "qwen2"},
                                read_config,
                                load_weights};
  return family;
}

}  // namespace kva
