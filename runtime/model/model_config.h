// What config.json says about a model, in one form for all families.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/activation.h"
#include "kernels/dtype.h"
#include "kernels/rope.h"

namespace kva {

enum class NormKind : uint8_t { kLayerNorm, kRmsNorm };
enum class PositionKind : uint8_t { kLearned, kRope };

struct ModelConfig {
  std::string family;        // "opt", "gpt2", "llama"
  std::string architecture;  // as the file names it: "Qwen2ForCausalLM"

  int layers = 0;
  int heads = 0;     // query heads
  int kv_heads = 0;  // divides heads
  int head_dim = 0;
  int64_t hidden = 0;
  int64_t ffn = 0;
  int64_t vocab = 0;
  int64_t embedding = 0;  // width of the token embedding; where it is not `hidden`, projections lie between
  int64_t max_positions = 0;  // the context the model was made for

  NormKind norm = NormKind::kLayerNorm;
  float norm_eps = 1e-5f;
  bool norm_weights = true;  // without them norms only normalise
  bool norm_before = true;   // norms before attention and feed-forward; otherwise after the residual sum
  bool final_norm = true;

  PositionKind position = PositionKind::kLearned;
  int64_t position_offset = 0;  // learned: position p reads row p + offset
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  std::optional<int64_t> sliding_window;  // in force beyond so many tokens; not implemented there

  float attention_scale = 1.0f;
  bool scale_by_layer = false;  // attention scores of layer i are divided by i + 1 as well
  Activation activation = Activation::kRelu;
  bool gated_ffn = false;
  bool qkv_bias = false;
  bool output_bias = false;  // of attention's output projection
  bool ffn_bias = false;
  bool tied_embeddings = false;  // the output projection is the token embedding

  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;

  // The longest context that is computed as the model defines it: max_positions, or the sliding window.
  int64_t usable_positions() const;
  // "max_position_embeddings 2048", for messages.
  std::string usable_positions_reason() const;

  // The rotation for a KvCache; nothing for learned positions.
  std::optional<Rope> rope() const;

  // Dense bytes of one token's keys and values, all layers.
  int64_t kv_bytes_per_token(DType k, DType v) const {
    return int64_t{layers} * kv_heads * head_dim * (dtype_bytes(k) + dtype_bytes(v));
  }
};

// Reads config.json (and the end tokens of generation_config.json). Throws InputError for another
// architecture, an option that is not implemented, or numbers that cannot be.
ModelConfig load_config(const std::string& folder);

// "OPTForCausalLM, GPT2LMHeadModel, ...": what load_config() accepts.
std::string supported_architectures();

}  // namespace kva
