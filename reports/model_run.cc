#include "reports/model_run.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "reports/provenance.h"

namespace kva {

using nlohmann::ordered_json;

FoundModel open_model(const ModelOptions& options) {
  ModelFolder folder =
      find_model(options.model, {.cache_dir = options.cache_dir, .allow_fetch = !options.offline});
  ModelConfig config = load_config(folder.path);
  Tokenizer tokenizer = Tokenizer::load(folder.path);
  tokenizer.check_fits_model(config.vocab);
  return {std::move(folder), std::move(config), std::move(tokenizer)};
}

LoadedModel load_model(const FoundModel& found, const ModelOptions& options, const RunDevice& device,
                       ThreadPool& pool, Progress& progress) {
  const LoadOptions load{.weights = weight_form(options.weights), .device = device.ops};
  LoadedModel loaded{Decoder::load(found.folder.path, load, pool),
                     identify(found.folder, TensorArchive::open_folder(found.folder.path))};
  progress.finish();
  progress.detail(fmt::format("{}: {} in {}, {:.1f} M parameters, {}", loaded.identity.name,
                              found.config.architecture, found.folder.path,
                              static_cast<double>(loaded.decoder.parameters()) / 1e6,
                              loaded.identity.tensor_hash));
  progress.detail(fmt::format("{}, on {}", version_line(), device.name()));
  return loaded;
}

ordered_json model_json(const FoundModel& found, const LoadedModel& loaded, int64_t kv_bytes_per_token) {
  const ModelConfig& config = found.config;
  const ModelIdentity& identity = loaded.identity;
  return {{"name", identity.name},
          {"family", config.family},
          {"architecture", config.architecture},
          {"path", found.folder.path},
          {"repository", identity.repository},
          {"revision", identity.revision},
          {"variant", identity.variant},
          {"source_quantization", identity.source_quantization},
          {"tensor_hash", identity.tensor_hash},
          {"parameters", loaded.decoder.parameters()},
          {"layers", config.layers},
          {"heads", config.heads},
          {"kv_heads", config.kv_heads},
          {"head_dim", config.head_dim},
          {"max_positions", config.max_positions},
          {"weights", loaded.decoder.weight_form()},
          {"kv_bytes_per_token", kv_bytes_per_token},
          {"position_encoding", config.position == PositionKind::kRope ? "rope" : "learned"}};
}

}  // namespace kva
