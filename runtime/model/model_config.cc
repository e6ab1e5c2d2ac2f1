#include "runtime/model/model_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "runtime/error.h"
#include "runtime/model/family.h"

namespace kva {
namespace {

constexpr JsonLimits kConfigLimits = {.max_bytes = 16 << 20, .max_depth = 32};

template <class Range>
bool contains(const Range& range, std::string_view value) {
  return std::find(range.begin(), range.end(), value) != range.end();
}

// The family and the name it goes by in this file.
std::pair<const Family*, std::string> find_family(const JsonNode& root) {
  if (const auto list = root.find("architectures"); list && list->size() > 0) {
    const std::string name = list->at(int64_t{0}).as_string();
    for (const Family* family : families())
      if (contains(family->architectures, name)) return {family, name};
    list->at(int64_t{0}).fail("a supported architecture (" + supported_architectures() + ")");
  }
  const JsonNode type = root.at("model_type");
  for (const Family* family : families())
    if (contains(family->model_types, type.as_string())) return {family, type.as_string()};
  type.fail("a model type whose architecture is supported (" + supported_architectures() + ")");
}

void read_end_tokens(const JsonNode& root, ModelConfig& config) {
  const auto eos = root.find("eos_token_id");
  if (!eos) return;
  const auto add = [&](const JsonNode& node) {
    const auto id = static_cast<int32_t>(node.as_int(0, INT32_MAX));
    if (std::find(config.eos_ids.begin(), config.eos_ids.end(), id) == config.eos_ids.end())
      config.eos_ids.push_back(id);
  };
  if (!eos->is_array()) return add(*eos);
  for (int64_t i = 0; i < eos->size(); ++i) add(eos->at(i));
}

void check(const JsonNode& root, const ModelConfig& config) {
  if (config.heads % config.kv_heads != 0)
    throw InputError(
        fmt::format("{}: num_key_value_heads: expected a divisor of the {} attention heads, found {}",
                    root.source(), config.heads, config.kv_heads));
  if (config.position == PositionKind::kRope && config.head_dim % 2 != 0)
    throw InputError(fmt::format("{}: head_dim: expected an even number for RoPE, found {}", root.source(),
                                 config.head_dim));
}

}  // namespace

ModelConfig load_config(const std::string& folder) {
  const JsonNode root = JsonNode::parse_file(folder + "/config.json", kConfigLimits);
  const auto [family, architecture] = find_family(root);
  if (const auto quantized = root.find("quantization_config"))
    quantized->fail("no quantized weights (kvanalyze reads F32, F16 and BF16 checkpoints)");
  ModelConfig config;
  config.family = family->name;
  config.architecture = architecture;
  family->read_config(root, config);
  check(root, config);
  if (const auto bos = root.find("bos_token_id"))
    config.bos_id = static_cast<int32_t>(bos->as_int(0, INT32_MAX));
  read_end_tokens(root, config);
  const std::string generation = folder + "/generation_config.json";
  if (std::filesystem::exists(generation))
    read_end_tokens(JsonNode::parse_file(generation, kConfigLimits), config);
  return config;
}

std::string supported_architectures() {
  std::vector<std::string_view> names;
  for (const Family* family : families())
    names.insert(names.end(), family->architectures.begin(), family->architectures.end());
  return fmt::format("{}", fmt::join(names, ", "));
}

int64_t ModelConfig::usable_positions() const {
  return sliding_window ? std::min(max_positions, *sliding_window) : max_positions;
}

std::string ModelConfig::usable_positions_reason() const {
  if (usable_positions() < max_positions)
    return fmt::format("its sliding_window of {}, which is not implemented beyond", *sliding_window);
  return fmt::format("its {} positions", max_positions);
}

std::optional<Rope> ModelConfig::rope() const {
  if (position != PositionKind::kRope) return std::nullopt;
  return Rope(head_dim, head_dim, rope_theta, rope_scaling);
}

int read_layers(const JsonNode& root, const char* key) {
  return static_cast<int>(root.at(key).as_int(1, 1024));
}
int read_heads(const JsonNode& root, const char* key) {
  return static_cast<int>(root.at(key).as_int(1, 4096));
}
int64_t read_width(const JsonNode& root, const char* key) { return root.at(key).as_int(1, 1 << 20); }
int64_t read_vocab(const JsonNode& root) { return root.at("vocab_size").as_int(1, 1 << 24); }
int64_t read_positions(const JsonNode& root, const char* key) { return root.at(key).as_int(1, 1 << 26); }

Activation read_activation(const JsonNode& root, const char* key, const char* fallback) {
  const std::string name = root.get_string(key, fallback);
  if (name == "relu") return Activation::kRelu;
  if (name == "gelu") return Activation::kGeluErf;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") return Activation::kGeluTanh;
  if (name == "silu" || name == "swish") return Activation::kSilu;
  root.at(key).fail(
      "an activation that is implemented (relu, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, silu)");
}

int divided_head_dim(const JsonNode& root, int64_t hidden, int heads) {
  if (hidden % heads != 0)
    throw InputError(
        fmt::format("{}: expected a hidden size that the number of heads divides, found {} and {}",
                    root.source(), hidden, heads));
  return static_cast<int>(hidden / heads);
}

}  // namespace kva
